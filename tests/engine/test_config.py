"""Configs as the tools read them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from mmsapa.engine.config import (
    kind_of,
    leaf_datasets,
    library_of,
    read_config,
    type_name,
)

from ..helpers import CONFIGS, ENVIRONMENT, PATIENCE, ROOT


def test_configs_are_read_where_a_fork_is_installed(tmp_path):
    """In a process where no distribution is named mmsegmentation.

    It sees everything else that is installed: the module, but not what pip
    knows of it. Ours are read by mmengine alone, as the fork's tools do it;
    others need ``read_config``.
    """
    pytest.importorskip('mmseg')
    site = tmp_path / 'site'
    site.mkdir()
    for folder in map(Path, sys.path):
        if folder.name in ('site-packages', 'dist-packages'):
            for path in folder.iterdir():
                link = site / path.name
                if not (path.match('mmsegmentation-*') or link.exists()):
                    link.symlink_to(path)
    other = tmp_path / 'config.py'
    other.write_text("_base_ = 'mmseg::_base_/models/fpn_r50.py'")
    program = f"""
import functools
from pathlib import Path

from mmengine.config import Config, utils
from mmsapa.engine.config import read_config

# Of a library's hundred lists of models each is read once.
utils.load = functools.cache(utils.load)
for path in Path({str(ROOT)!r}).glob('configs/*/*.py'):
    print(Config.fromfile(path).default_scope)
try:
    Config.fromfile({str(other)!r})
except ModuleNotFoundError as error:
    print(repr(error))
print(read_config({str(other)!r}).model.neck.type)
"""
    result = subprocess.run(
        [sys.executable, '-S', '-W', 'ignore', '-c', program],
        env={**ENVIRONMENT, 'PYTHONPATH': f'{ROOT}{os.pathsep}{site}'},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    *scopes, error, neck = result.stdout.splitlines()
    assert {*scopes} == {'mmseg', 'mmdet', 'mmsapa'}
    assert len(scopes) == len([*ROOT.glob('configs/*/*.py')])
    assert 'mmsegmentation is not installed' in error
    assert neck == 'FPN'


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
    for scope in 'mmdet', 'mmsapa':
        assert library_of(Config(dict(default_scope=scope))) == scope
    with pytest.raises(ValueError, match="got None, .* 'FPN'"):
        library_of(Config(dict(model=dict(type='FPN'))))


def test_a_mattor_needs_no_scope():
    from mmsapa.matting import Mattor

    class Own(Mattor):
        pass

    for kind in Mattor, Own, 'mmsapa.Mattor':
        assert library_of(Config(dict(model=dict(type=kind)))) == 'mmsapa'


def test_the_kind_of_a_model_is_that_of_its_class():
    segmentors = pytest.importorskip('mmseg.models.segmentors')

    class Mine(segmentors.DepthEstimator):
        pass

    names = dict(seg='segmentor', det='detector', depth='depth estimator')
    names['matting'] = 'mattor'
    for kind, name in names.items():
        assert kind_of(read_config(ROOT / CONFIGS[kind])) == name
    assert kind_of(Config(dict(model=dict(type='mmsapa.Mattor')))) == 'mattor'
    for kind in Mine, 'mmseg.DepthEstimator':
        cfg = Config(dict(default_scope='mmseg', model=dict(type=kind)))
        assert kind_of(cfg) == 'depth estimator'
    unknown = dict(default_scope='mmseg', model=dict(type='Unknown'))
    assert kind_of(Config(unknown)) == 'segmentor'
