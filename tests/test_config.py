"""Configs as the tools look at them."""

import pytest
from mmengine.config import Config, ConfigDict

from mmsapa.config import leaf_datasets, library_of, type_name


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
