"""The pages of controlled comparisons, and words that are refused."""

import json
import re

import pytest

from ..helpers import CONFIGS, ROOT, call, error, make_data, write_config

pytest.importorskip('mmseg')

TOOL = 'analysis_tools/compare_upsamplers'


def test_the_mean_and_the_spread_are_those_over_seeds(
    tmp_path, monkeypatch, capsys
):
    result = json.loads((ROOT / 'docs/comparison/fine-tuned.json').read_text())
    values = iter([30, 31, 35])
    for trained in result['rows'][0]['runs']:
        trained['mIoU'] = next(values)
    (tmp_path / 'file.json').write_text(json.dumps(result))
    call(monkeypatch, TOOL, '--show', tmp_path / 'file.json')
    assert '32.00 ± 2.65' in capsys.readouterr().out


def test_differences_and_classes_are_in_tables(tmp_path, monkeypatch, capsys):
    result = json.loads((ROOT / 'docs/comparison/fine-tuned.json').read_text())
    result['rows'] = ours, theirs = result['rows'][:2]
    result.update(baseline=theirs['upsampler'], classes=['sky', 'pole', 'car'])
    for row, figures in (ours, [30, 31, 35]), (theirs, [40, 40, 40]):
        for run, figure in zip(row['runs'], figures):
            both = dict.fromkeys(('mIoU', 'mBIoU'), [figure, 50, None])
            run['classes'] = both
    pair = dict(difference=-1.234, low=-2, high=0.1, better=1)
    pair['classes'] = dict(low=[-9, -1, None], high=[-7, 1, None])
    ours['paired'] = dict(mIoU=pair, mBIoU=pair)
    (tmp_path / 'file.json').write_text(json.dumps(result))
    call(monkeypatch, TOOL, '--show', tmp_path / 'file.json')
    page = re.sub(' +', ' ', capsys.readouterr().out)
    name = ours['upsampler']
    assert f'Paired differences from {theirs["upsampler"]}, with' in page
    assert f'| {name} | -1.23 (-2.00 to +0.10), 1 of 3 | -1.23' in page
    for row in (
        f'| IoU | {name} | {theirs["upsampler"]} |',
        '| sky | 32.0 ± 2.6* | 40.0 ± 0.0 |',
        '| pole | 50.0 ± 0.0 | 50.0 ± 0.0 |',
        '| car | - | - |',
    ):
        assert row in page


@pytest.mark.parametrize(
    'name', ['from-scratch', 'fine-tuned', 'nyu-labeled', 'alphamatting']
)
def test_the_pages_in_docs_are_those_of_their_json(name, monkeypatch, capsys):
    path = ROOT / f'docs/comparison/{name}.json'
    call(monkeypatch, TOOL, '--show', path)
    # mmsegmentation's fork prints when it is imported.
    printed = capsys.readouterr().out
    assert printed.endswith(path.with_suffix('.md').read_text())


@pytest.mark.parametrize('content', ['{"rows": [', '[]', '{}', None])
def test_what_is_no_comparison_is_named(content, tmp_path, monkeypatch):
    path = tmp_path / 'file.json'
    if content:
        path.write_text(content)
    message = error(monkeypatch, TOOL, '--show', path)
    assert message.startswith(f'{path}: expected a comparison, got')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--upsamplers', 'sapa'], r"'sapa' \(choose from .*sapa-g"),
        (['--jobs', 'two'], '--jobs: expected a whole number, got two'),
        (['--seeds', '1.5'], '--seeds: expected a whole number, got 1.5'),
        (['--lrs', '0'], '--lrs: expected a number above 0, got 0'),
        (['--baseline', 'fade'], 'expected one of .*sapa-g, got fade'),
    ],
)
def test_bad_arguments_are_named(arguments, words, monkeypatch, capsys):
    error(monkeypatch, TOOL, *arguments)
    assert re.search(words, capsys.readouterr().err)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('config')
    root = make_data(folder, 'seg', 1, 1)
    return write_config(folder / 'config.py', 'seg', root)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--config', 'no.py'], 'There is no config file no.py'),
        (
            ['--config', ROOT / CONFIGS['det']],
            'mattor with an upsample_cfg',
        ),
        (['--cfg-options', 'load_from=no.pth'], 'no checkpoint no.pth'),
        (
            ['--cfg-options', 'train_cfg.max_iters=4', 'test_dataloader=None'],
            'and a test_dataloader',
        ),
        (
            ['--cfg-options', 'test_dataloader.dataset.data_root=no'],
            'needs no/',
        ),
        (
            ['--lrs', '1e-3', '--cfg-options', 'val_dataloader=None'],
            'expected a val_dataloader with other images',
        ),
        (
            ['--lrs', '1e-3', '--config', ROOT / CONFIGS['seg']],
            'expected a val_dataloader with other images',
        ),
        (['--out', ROOT / 'setup.py'], 'expected a folder, got .*setup.py'),
    ],
)
def test_what_does_not_fit_is_named(
    options, words, config, tmp_path, monkeypatch
):
    options = ['--config', config, '--out', tmp_path, *options]
    assert re.search(words, error(monkeypatch, TOOL, *options))
