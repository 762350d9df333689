"""Configs as the tools look at them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from mmsapa.engine.config import leaf_datasets, library_of, type_name

from ..helpers import ROOT


@pytest.fixture(scope='module')
def run_with_a_fork(tmp_path_factory):
    """Run code where no distribution is named mmsegmentation.

    It sees all else that is installed: the module, but not what pip knows of
    it.
    """
    pytest.importorskip('mmseg')
    here = tmp_path_factory.mktemp('fork')
    for folder in map(Path, sys.path):
        if folder.name in ('site-packages', 'dist-packages'):
            for path in folder.iterdir():
                link = here / path.name
                if not (path.match('mmsegmentation-*') or link.exists()):
                    link.symlink_to(path)

    def run(code):
        result = subprocess.run(
            [sys.executable, '-S', '-W', 'ignore', '-c', code],
            env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{here}'},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_every_config_is_read_by_mmengine_alone_with_a_fork(run_with_a_fork):
    """The tools of a fork know nothing of ours."""
    output = run_with_a_fork(
        'import sys\n'
        'from pathlib import Path\n'
        'from mmengine.config import Config\n'
        f'for path in Path({str(ROOT)!r}).glob("configs/*/*.py"):\n'
        '    cfg = Config.fromfile(path)\n'
        '    print(cfg.default_scope)\n'
    ).split()
    assert {*output} == {'mmseg', 'mmdet'}
    assert len(output) == len([*ROOT.glob('configs/*/*.py')])


def test_a_base_of_mmsegmentation_is_found_in_a_fork(
    run_with_a_fork, tmp_path
):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmseg::_base_/models/fpn_r50.py'")
    output = run_with_a_fork(
        'from mmengine.config import Config\n'
        'from mmsapa.engine.config import read_config\n'
        'try:\n'
        f'    Config.fromfile({str(path)!r})\n'
        'except ModuleNotFoundError as error:\n'
        '    print(error.args)\n'
        f'print(read_config({str(path)!r}).model.neck.type)\n'
    )
    assert 'mmsegmentation is not installed' in output
    assert output.endswith('FPN\n')


def test_leaves_of_nested_data_sets_are_found_and_can_be_changed():
    a, b, c = ({'data_root': name} for name in 'abc')
    dataset = ConfigDict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                dict(type='MultiImageMixDataset', dataset=a),
                dict(type='ConcatDataset', datasets=[b, c]),
            ],
        ),
    )
    leaves = leaf_datasets(dataset)
    assert leaves == [a, b, c]
    leaves[1].data_root = 'd'
    assert dataset.dataset.datasets[1].datasets[0].data_root == 'd'
    assert leaf_datasets(a) == [a]
    assert leaf_datasets(None) == []


def test_types_are_names_paths_and_classes(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'from torch.nn import SyncBatchNorm\nnorm = dict(type=SyncBatchNorm)'
    )
    lazy = Config.fromfile(path).norm
    for cfg, name in (
        (dict(type='SyncBN'), 'SyncBN'),
        (dict(type='mmsapa.FPN'), 'FPN'),
        (dict(type='mmdet.models.necks.FPN'), 'FPN'),
        (lazy, 'SyncBatchNorm'),
        ({}, ''),
    ):
        assert type_name(cfg) == name


def test_the_library_is_that_of_the_scope_or_of_the_model():
    mmseg = pytest.importorskip('mmseg.models')

    class Own(mmseg.EncoderDecoder):
        pass

    for scope in (None, 'mmengine'):
        for kind in (mmseg.EncoderDecoder, Own, 'mmseg.EncoderDecoder'):
            cfg = Config(dict(default_scope=scope, model=dict(type=kind)))
            assert library_of(cfg) == 'mmseg'
    assert library_of(Config(dict(default_scope='mmdet'))) == 'mmdet'
    with pytest.raises(ValueError, match="got None, .* 'FPN'"):
        library_of(Config(dict(model=dict(type='FPN'))))
