"""Published figures beside ours, and ours beside OpenMMLab's get_flops.py."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from mmsapa.engine.config import read_config
from mmsapa.engine.inference import build_model
from mmsapa.evaluation.complexity import count
from mmsapa.upsamplers import IndexNet

from ..helpers import COMMON, QUICK, ROOT, call, error, make_data, write_config
from ..upsamplers.helpers import sapa_macs as expected_macs

TOOL = 'analysis_tools/published_tables'
COUNTS = ROOT / 'docs/tables/published.json'
published = runpy.run_path(str(ROOT / f'tools/{TOOL}.py'))
PAPERS, build = published['PAPERS'], published['build']


def counts_in_docs():
    return json.loads(COUNTS.read_text())['models']


# ---- the page ---------------------------------------------------------------


def test_the_page_is_that_of_the_counts(monkeypatch, capsys):
    call(monkeypatch, TOOL, '--counts', COUNTS)
    assert capsys.readouterr().out == COUNTS.with_suffix('.md').read_text()


@pytest.mark.parametrize('model', PAPERS)
def test_a_note_brings_ours_to_the_published_figure(model):
    paper, rows = PAPERS[model], counts_in_docs()[model]
    for note in paper.get('notes', ()):
        name, column = note['upsampler'], note['column']
        _, unit, _, keys = published['COLUMNS'][column]
        ours = published['held'](paper, rows, name, keys[-1])
        printed = paper[column][name]
        difference = published['difference']
        assert difference(ours, printed, unit) != 'yes', note
        assert difference(ours + note['adds'], printed, unit) == 'yes', note


@pytest.mark.parametrize(
    ('ours', 'printed', 'unit', 'expected'),
    [
        (13_735_148, '13.74', 6, 'yes'),
        (13_715_798, '13.74', 6, '-0.024'),
        (13_735_000, '13.74', 6, 'yes'),  # half a unit
        (13_734_999, '13.74', 6, '-0.005'),
        (104_832, '+.1', 6, 'yes'),
        (104_832, '+.100', 6, '+0.005'),
        (6_144, '+0', 6, 'yes'),
        (6_144, '+.00', 6, '+0.006'),
        (1_017_938_000, '+1.02', 9, 'yes'),
        (1_017_938, '+1.02', 9, '-1.019'),
    ],
)
def test_agreement_is_that_of_the_published_digits(
    ours, printed, unit, expected
):
    assert published['difference'](ours, printed, unit) == expected


# ---- the counts -------------------------------------------------------------


@pytest.mark.parametrize('model', PAPERS)
def test_the_parameters_are_no_older_than_the_models(model, scope):
    paper, rows = PAPERS[model], counts_in_docs()[model]
    params = count(build(paper, 'sapa-g'), None)['params']
    assert params == rows['sapa-g']['params']


def test_segformers_counts_are_no_older_than_the_model(
    monkeypatch, capsys, tmp_path
):
    names = ['bilinear', 'sapa-g']
    call(
        *(monkeypatch, TOOL, '--models', 'segformer-b1'),
        *('--upsamplers', *names, '--out'),
        *(tmp_path / 'a/tables.md', tmp_path / 'a/tables.json'),
    )
    printed = capsys.readouterr()
    assert (tmp_path / 'a/tables.md').read_text() == printed.out
    assert '100%' in printed.err  # the progress bar goes elsewhere
    result = json.loads((tmp_path / 'a/tables.json').read_text())
    docs = counts_in_docs()['segformer-b1']
    assert result['models'] == {
        'segformer-b1': {name: docs[name] for name in names}
    }


@pytest.mark.parametrize('variant', ['i', 'b', 'g'])
def test_products_are_those_of_the_papers_formulas(variant):
    rows = counts_in_docs()['segformer-b1']
    more = rows[f'sapa-{variant}']['products'] - rows['bilinear']['products']
    assert more == sum(
        expected_macs(variant.upper(), (512 // stride) ** 2, 256, 256)
        for stride in (8, 8, 8, 16, 16, 32)
    )


def test_what_cannot_be_built_says_why(monkeypatch, capsys):
    arguments = ('--models', 'bts-r50', '--upsamplers', 'sapa-i')
    call(monkeypatch, TOOL, *arguments)
    text = capsys.readouterr().out
    assert "- sapa-i: SAPA: variant 'I' compares guide and x" in text


def test_other_files_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, TOOL, '--out', 'a.pdf')
    assert (
        'expected FILE.md or FILE.json, got a.pdf' in capsys.readouterr().err
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


def write_model(folder, kind, slot, baseline):
    """Write the config of a small model with its baseline for upsampler."""
    path = write_config(
        *(folder / 'config.py', kind, make_data(folder, kind, 1, 1)),
        COMMON + QUICK,
    )
    upsample_cfg = dict(_delete_=True, type=baseline)
    path.write_text(
        f"{path.read_text()}\nmodel['{slot}']['upsample_cfg'] = {upsample_cfg}"
    )
    return path


def test_mmsegmentations_tool_counts_the_same(get_flops, tmp_path):
    config = write_model(tmp_path, 'seg', 'decode_head', 'bilinear')
    theirs = get_flops('mmseg', config, '--shape', 96, 128)
    ours = count(build_model(read_config(config)), (96, 128))
    assert theirs['flops'] == ours['flops']
    assert theirs['params'] == ours['params']


def test_mmdetections_tool_counts_the_same(get_flops, tmp_path):
    config = write_model(tmp_path, 'det', 'neck', 'nearest')
    # As many proposals as are found with any weights.
    settings = ('--cfg-options', 'model.test_cfg.rpn.max_per_img=50')
    theirs = get_flops('mmdet', config, *settings)
    cfg = read_config(config)
    cfg.model.test_cfg.rpn.max_per_img = 50
    ours = count(build_model(cfg), tuple(theirs['pad_shape']))
    assert theirs['flops'] == ours['flops']
    assert theirs['params'] == ours['params']


def test_our_tool_prints_the_counts(monkeypatch, capsys, tmp_path):
    config = write_config(tmp_path / 'config.py', 'seg', tmp_path)
    call(
        *(monkeypatch, 'analysis_tools/get_flops', config),
        *('--shape', 96, 128, '--cfg-options'),
        'model.decode_head.upsample_cfg.variant=B',
    )
    cfg = read_config(config)
    cfg.model.decode_head.upsample_cfg.variant = 'B'
    counts = count(build_model(cfg), (96, 128))
    text = capsys.readouterr().out
    assert f'Parameters: {counts["params"] / 1e6:.3f} M' in text
    assert f'FLOPs: {counts["flops"] / 1e9:.3f} G' in text
    assert f'as papers count: {counts["products"] / 1e9:.3f} G' in text


def test_our_tool_says_what_cannot_be_built(monkeypatch, tmp_path):
    config = write_config(tmp_path / 'config.py', 'seg', tmp_path)
    arguments = ('--cfg-options', 'model.decode_head.channels=x')
    text = error(monkeypatch, 'analysis_tools/get_flops', config, *arguments)
    assert 'its model cannot be built: ' in text
    text = error(monkeypatch, 'analysis_tools/get_flops', tmp_path / 'no.py')
    assert text.startswith('There is no config file')


def test_maskformer_is_counted_and_left_as_it_was(scope):
    """MMSegmentation calls its head without the samples that it needs."""
    cfg = read_config(ROOT / 'configs' / PAPERS['maskformer-swin-b']['config'])
    cfg.model.backbone.update(depths=[1, 1, 1, 1])
    model = build_model(cfg)
    names = set(vars(model)), set(vars(model.decode_head))
    assert count(model, (64, 64))['flops'] > 0
    assert names == (set(vars(model)), set(vars(model.decode_head)))


def test_a_detectors_flops_hang_on_no_weights():
    """An image half as high and wide as ours has 1000 proposals already."""
    torch.manual_seed(1)
    counts = count(build(PAPERS['faster-rcnn-r50'], 'nearest'), (400, 640))
    fully_connected = 49 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    assert counts['operators']['linear'] == 1000 * fully_connected


# ---- what notes add ---------------------------------------------------------


def added(model, upsampler, column):
    return next(
        note['adds']
        for note in PAPERS[model]['notes']
        if (note['upsampler'], note['column']) == (upsampler, column)
    )


def test_frozen_parameters_are_those_of_stem_and_first_stage():
    model = build(PAPERS['faster-rcnn-r50'], 'nearest')
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
    assert added('faster-rcnn-r50', 'nearest', 'params') == -sum(frozen)


def test_the_classifier_is_that_of_resnet50():
    channels = build(PAPERS['bts-r50'], 'nearest').decode_head.in_channels[-1]
    classifier = torch.nn.Linear(channels, 1000)
    numbers = sum(p.numel() for p in classifier.parameters())
    assert added('bts-r50', 'nearest', 'params') == numbers


def test_indexnet_in_matting_is_two_networks_of_another_form():
    channels = 256, 128, 64, 64

    def parameters(**form):
        layers = torch.nn.ModuleList(IndexNet(c, **form) for c in channels)
        return sum(p.numel() for p in layers.parameters())

    assert parameters(holistic=False) == 6_131_712
    more = 2 * parameters(holistic=False) - parameters()
    assert added('a2u-matting-r34', 'indexnet', 'params') == more


def test_biases_norm_and_relu_are_those_of_segformer():
    """As the authors have it: what is linear there has no bias counted."""
    model = build(PAPERS['segformer-b1'], 'bilinear')
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
    assert sum(counts) == added('segformer-b1', 'bilinear', 'flops')
