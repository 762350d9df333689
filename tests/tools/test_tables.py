"""Published figures beside ours, and ours beside OpenMMLab's get_flops.py."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from mmsapa.datasets.demo_data import make_dataset

from ..upsamplers.helpers import sapa_macs as expected_macs

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / 'tools' / 'analysis_tools'))

import papers  # noqa: E402
import published_tables as published  # noqa: E402

PAPER = papers.Slots(
    title='Some',
    channels=(),
    baseline='nearest',
    params={'nearest': '1.00', 'sapa-b': '+.1', 'sapa-g': '+.1'},
    reasons=(
        papers.Reason('nearest', 'params', 'one head is missing:', 20_000),
        papers.Reason('sapa-b', 'params', 'never said where it agrees'),
        papers.Reason('sapa-g', 'params', "it is B's:", like='sapa-b'),
    ),
)


@pytest.fixture
def tables(capsys, tmp_path):
    """Run the program; return what it printed and wrote."""

    def run(*arguments):
        files = [tmp_path / f'a/tables{end}' for end in ('.txt', '.md')]
        published.main([*arguments, '--out', *map(str, files)])
        printed = capsys.readouterr()
        return printed, *(path.read_text() for path in files)

    return run


@pytest.mark.slow
def test_segformer_from_end_to_end(tables):
    printed, text, markdown = tables(
        *('--models', 'segformer-b1', '--format', 'json'),
        *('--upsamplers', 'carafe', 'sapa-i', 'sapa-b', 'sapa-g'),
    )
    # The progress bar goes elsewhere.
    result = json.loads(printed.out)
    assert '100%' in printed.err
    (model,) = result['models']
    rows = {row['upsampler']: row for row in model['rows']}
    assert list(rows) == ['bilinear', 'carafe', 'sapa-i', 'sapa-b', 'sapa-g']
    for name, params in (('i', 6144), ('b', 104_832), ('g', 155_718)):
        assert rows[f'sapa-{name}']['more'] == dict(
            params=params,
            flops=rows[f'sapa-{name}']['flops'] - rows['bilinear']['flops'],
            products=sum(
                expected_macs(name.upper(), (512 // stride) ** 2, 256, 256)
                for stride in (8, 8, 8, 16, 16, 32)
            ),
        )
    assert [row['agrees']['products'] for row in rows.values()] == (
        ['-0.032', 'yes', 'yes', 'yes', '+0.121']
    )
    # Every reason is borne out.
    notes = sum((row['notes'] for row in rows.values()), [])
    reasons = papers.MODELS['segformer-b1'].reasons
    assert len(notes) == sum(r.upsampler in rows for r in reasons)
    assert all(note.endswith(', which agrees.') for note in notes)

    assert re.search(r'\| sapa-b +\| +\+.1 +\| 13,820,630 \| +\+104,832', text)
    assert '| sapa-b' in markdown and '+---' in text and '+---' not in markdown
    for words in ('512x512', '## SegFormer-B1', *notes):
        assert words in text and words in markdown

    # The tables in docs are no older than the layers.
    docs = json.loads((ROOT / 'docs/tables/published.json').read_text())
    for row in docs['models'][0]['rows']:
        for key in ('params', 'products'):
            if row['upsampler'] in rows:
                assert row[key] == rows[row['upsampler']][key]


def test_every_reason_is_borne_out(tables):
    """Those of parameters: one size is as good as another."""
    docs = json.loads((ROOT / 'docs/tables/published.json').read_text())
    docs = {
        (model['model'], row['upsampler']): row.get('params')
        for model in docs['models']
        for row in model['rows']
    }
    for model, paper in papers.MODELS.items():
        upsamplers = {reason.upsampler for reason in paper.reasons}
        printed, *_ = tables(
            *('--models', model, '--size', '64x64', '--format', 'json'),
            *('--upsamplers', *upsamplers, 'sapa-b'),
        )
        (counted,) = json.loads(printed.out)['models']
        notes = sum((row['notes'] for row in counted['rows']), [])
        assert len(notes) == sum(r.column == 'params' for r in paper.reasons)
        # The tables in docs are no older than the models.
        for row in counted['rows']:
            assert docs[model, row['upsampler']] == row.get('params')
        assert all(note.endswith(', which agrees.') for note in notes)


@pytest.mark.parametrize(
    ('ours', 'printed', 'unit', 'expected'),
    [
        (13_735_148, '13.74', 6, 'yes'),
        (13_715_798, '13.74', 6, '-0.024'),
        (13_735_000, '13.74', 6, 'yes'),  # half a unit
        (13_734_999, '13.74', 6, '-0.005'),
        (104_832, '+.1', 6, 'yes'),
        (104_832, '+.10', 6, 'yes'),
        (104_832, '+.100', 6, '+0.005'),
        (155_718, '+.1', 6, '+0.056'),
        (6_144, '+0', 6, 'yes'),
        (6_144, '+.00', 6, '+0.006'),
        (1_017_938_000, '+1.02', 9, 'yes'),
        (1_017_938, '+1.02', 9, '-1.019'),
    ],
)
def test_agreement_is_that_of_the_published_digits(
    ours, printed, unit, expected
):
    assert published.difference(ours, printed, unit) == expected


def judged(**params):
    rows = [
        dict(upsampler=name.replace('_', '-'), params=n)
        for name, n in params.items()
    ]
    published.judge(PAPER, rows, None)
    return {row['upsampler']: row for row in rows}


def test_a_reason_is_said_where_figures_differ_and_tried():
    rows = judged(nearest=980_000, sapa_b=1_080_000, sapa_g=1_180_000)
    assert rows['nearest']['agrees'] == dict(params='-0.020')
    assert rows['nearest']['notes'] == [
        'parameters: one head is missing: 1.000 M, which agrees.'
    ]
    assert rows['sapa-b']['agrees'] == dict(params='yes')
    assert rows['sapa-b']['notes'] == []
    assert rows['sapa-g']['agrees'] == dict(params='+0.100')
    assert rows['sapa-g']['notes'] == [
        "parameters: it is B's: +0.100 M, which agrees."
    ]


def test_a_reason_that_does_not_hold_is_not_held():
    rows = judged(nearest=900_000, sapa_b=1_200_000, sapa_g=1_300_000)
    assert rows['nearest']['notes'] == [
        'parameters: one head is missing: 0.920 M, which does not agree '
        'either.'
    ]
    assert 'does not agree either' in rows['sapa-g']['notes'][0]
    (note,) = judged(nearest=1_000_000, sapa_g=1_500_000)['sapa-g']['notes']
    assert note.endswith('which is not counted here.')


def test_what_cannot_be_built_says_why(tables):
    printed, text, _ = tables('--models', 'bts-r50', '--upsamplers', 'sapa-i')
    assert printed.out == text
    assert "- sapa-i: SAPA: variant 'I' compares guide and x" in text


def test_stages_are_added_up():
    """By the formulas of sapa.md: 2 (C + Cg) + d (C + Cg + 2) for B."""
    paper = papers.MODELS['bts-r50']
    counts = published.count(published.build(paper, 'sapa-b'), None)
    assert counts == dict(
        params=sum(34 * sum(channels) + 64 for channels in paper.channels)
    )


# ---- get_flops.py -----------------------------------------------------------


@pytest.fixture
def get_flops(monkeypatch, scope):
    """Run a library's tool; return what it prints, before it rounds."""

    def run(library, *arguments):
        folder = Path(pytest.importorskip(library).__file__).parent
        path = folder / '.mim/tools/analysis_tools/get_flops.py'
        spec = importlib.util.spec_from_file_location('get_flops', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, '_format_size', lambda number: number)
        if library == 'mmseg':
            # 1.2 hands over a shape as well, which mmengine 0.10 refuses:
            # https://github.com/open-mmlab/mmsegmentation/issues/3241
            count = module.get_model_complexity_info
            monkeypatch.setattr(
                module,
                'get_model_complexity_info',
                lambda model, input_shape, **kwargs: count(model, **kwargs),
            )
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        logger = MMLogger.get_current_instance()
        return module.inference(module.parse_args(), logger)

    return run


@pytest.mark.parametrize('variant', ['i', 'b', 'g'])
def test_mmsegmentations_tool_counts_the_same(variant, get_flops):
    paper = papers.MODELS['segformer-b1']
    config = paper.config.replace('sapa-g', f'sapa-{variant}')
    theirs = get_flops('mmseg', ROOT / 'configs' / config, '--shape', 96, 128)
    ours = published.count(
        published.build(paper, f'sapa-{variant}'), (96, 128)
    )
    assert theirs['flops'] == ours['flops']
    assert theirs['params'] == ours['params']


@pytest.mark.slow
def test_mmdetections_tool_counts_the_same(get_flops, tmp_path):
    """On an image that is made as large as ours."""
    paper = papers.MODELS['faster-rcnn-r50']
    make_dataset(str(tmp_path), 'coco', 1, 1, size=64, nproc=1)
    data = 'val_dataloader.dataset'
    theirs = get_flops(
        *('mmdet', ROOT / 'configs' / paper.config, '--cfg-options'),
        f'{data}.data_root={tmp_path}/coco/',
        f'{data}.pipeline.1.scale=(512,512)',
        *('val_dataloader.num_workers=0',),
        *('val_dataloader.persistent_workers=False',),
    )
    assert tuple(theirs['pad_shape']) == (512, 512)
    ours = published.count(published.build(paper, 'sapa-g'), (512, 512))
    assert theirs['flops'] == ours['flops']
    assert theirs['params'] == ours['params']


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2])
def test_a_detectors_flops_hang_on_no_weights(seed):
    """An image half as high and wide as ours has 1000 proposals already."""
    torch.manual_seed(seed)
    paper = papers.MODELS['faster-rcnn-r50']
    counts = published.count(published.build(paper, 'nearest'), (400, 640))
    fully_connected = 49 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    assert counts['operators']['linear'] == 1000 * fully_connected


# ---- reasons ----------------------------------------------------------------


def reason_of(model, column):
    return next(
        reason.adds
        for reason in papers.MODELS[model].reasons
        if reason.column == column and reason.adds
    )


def test_frozen_parameters_are_those_of_stem_and_first_stage():
    model = published.build(papers.MODELS['faster-rcnn-r50'], 'nearest')
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
    assert reason_of('faster-rcnn-r50', 'params') == -sum(frozen)


def test_biases_norm_and_relu_are_those_of_segformer():
    """As the authors have it: what is linear there has no bias counted."""
    model = published.build(papers.MODELS['segformer-b1'], 'bilinear')
    counts = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            linear = module.kernel_size == (1, 1) and 'conv_seg' not in name
            times = int(module.bias is not None and not linear)
        else:
            times = {'BatchNorm2d': 2, 'ReLU': 1}.get(type(module).__name__, 0)
        module.register_forward_hook(
            lambda module, inputs, output, times=times: (
                counts.append(times * output.numel()) if times else None
            )
        )
    with torch.no_grad():
        model(torch.randn(1, 3, 512, 512))
    assert sum(counts) == reason_of('segformer-b1', 'flops')


# ---- command line -----------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--models', 'segformer-b9'], 'one of segformer-b1.*segformer-b9'),
        (['--upsamplers', 'sapa'], 'one of nearest, .*sapa-g, got sapa'),
        (['--size', '512'], 'HxW.*got 512'),
        (['--out', 'a.pdf'], 'ends in .txt, .md, .json, got a.pdf'),
    ],
)
def test_bad_arguments_are_named(arguments, words, capsys):
    with pytest.raises(SystemExit):
        published.main(arguments)
    assert re.search(words, capsys.readouterr().err)


def test_the_readmes_table_is_that_of_docs():
    docs = json.loads((ROOT / 'docs/tables/published.json').read_text())
    readme = (ROOT / 'README.md').read_text()
    lines = {
        tuple(cells[1:3]): cells[3:9]
        for line in readme.splitlines()
        if len(cells := [cell.strip() for cell in line.split('|')]) == 10
    }
    for model in docs['models']:
        for row in model['rows']:
            if not row.get('published'):
                continue
            cells = lines.pop((model['title'].split(',')[0], row['upsampler']))
            ours = row.get('more', row)
            for i, (column, key, unit) in enumerate(
                [('params', 'params', 6), ('flops', 'products', 9)]
            ):
                printed, counted, difference = cells[3 * i : 3 * i + 3]
                assert printed == row['published'].get(column, '')
                if not printed:
                    continue
                digits = len(counted.partition('.')[2])
                assert float(counted) == round(ours[key] / 10**unit, digits)
                off, *note = difference.replace('\N{MINUS SIGN}', '-').split()
                exact = ours[key] / 10**unit - float(printed)
                assert float(off) == pytest.approx(exact, abs=6e-4)
                # What does not agree has a note.
                assert bool(note) == (row['agrees'][key] != 'yes')
    assert lines.keys() <= {('model', 'upsampler'), ('---', '---')}
