"""Configs in pure Python: classes as types, and no default_scope."""

import pickle

import pytest
from mmengine.config import Config

from mmsapa.engine.config import library_of, type_name
from mmsapa.engine.training_options import use_amp

from ..helpers import call, error, log_of, make_data, save_weights

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')

MODELS = dict(
    seg="""
from mmseg.models import (
    EncoderDecoder, MixVisionTransformer, SegDataPreProcessor)

from mmsapa.seg import SegformerHead

model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64)),
    backbone=dict(
        type=MixVisionTransformer, embed_dims=8, num_layers=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8]),
    decode_head=dict(
        type=SegformerHead, in_channels=[8, 16, 32, 64],
        in_index=[0, 1, 2, 3], channels=16, num_classes=8,
        upsample_cfg=dict(type='sapa')),
    test_cfg=dict(mode='whole'))
""",
    det="""
from mmdet.models import FCOS, DetDataPreprocessor, FCOSHead, ResNet

from mmsapa.det import FPN

model = dict(
    type=FCOS,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18),
    neck=dict(
        type=FPN, in_channels=[64, 128, 256, 512], out_channels=32,
        num_outs=5, upsample_cfg=dict(type='sapa')),
    bbox_head=dict(
        type=FCOSHead, num_classes=7, in_channels=32, feat_channels=32),
    test_cfg=dict(nms_pre=100, score_thr=0.0, max_per_img=10,
        nms=dict(type='nms', iou_threshold=0.5)))
""",
)
REST = dict(
    seg="""
from mmcv.transforms import LoadImageFromFile, RandomFlip, TestTimeAug
from mmseg.datasets import BaseSegDataset as Dataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.engine.hooks import SegVisualizationHook as VisualizationHook
from mmseg.evaluation import IoUMetric
from mmseg.models import SegTTAModel
from mmseg.visualization import SegLocalVisualizer as Visualizer

names = 'ground', 'disc', 'ring', 'triangle', 'cross', 'star', 'bar', 'spiral'
train, val = (
    dict(
        reduce_zero_label=True,
        data_prefix=dict(
            img_path='images/' + split, seg_map_path='annotations/' + split))
    for split in ('training', 'validation'))
pipeline = [
    dict(type=LoadImageFromFile), dict(type=LoadAnnotations),
    dict(type=PackSegInputs)]
val_evaluator = dict(type=IoUMetric)
tta_model = dict(type=SegTTAModel)
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=TestTimeAug, transforms=[
        [dict(type=RandomFlip, prob=0.0), dict(type=RandomFlip, prob=1.0)],
        [dict(type=LoadAnnotations)], [dict(type=PackSegInputs)]])]
""",
    det="""
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset as Dataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.engine.hooks import DetVisualizationHook as VisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.visualization import DetLocalVisualizer as Visualizer

names = 'disc', 'ring', 'triangle', 'cross', 'star', 'bar', 'spiral'
train, val = (
    dict(
        data_prefix=dict(img=split),
        ann_file=f'annotations/instances_{split}.json')
    for split in ('train2017', 'val2017'))
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale_factor=1.0),
    dict(type=PackDetInputs, meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
val_evaluator = dict(
    type=CocoMetric,
    ann_file='{root}/annotations/instances_val2017.json')
""",
)
COMMON = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.optim import SGD

with read_base():
    from .base_{kind} import *
{rest}
train_dataloader, val_dataloader = (
    dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type=DefaultSampler, shuffle=False),
        dataset=dict(
            type=Dataset, data_root='{root}', metainfo=dict(classes=names),
            pipeline=pipeline, **part))
    for part in (train, val))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
train_cfg = dict(type=IterBasedTrainLoop, max_iters=1, val_interval=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=1),
    visualization=dict(type=VisualizationHook))
visualizer = dict(
    type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('pure')


@pytest.fixture(params=['seg', 'det'])
def kind(request):
    return request.param


@pytest.fixture
def config(folder, kind):
    path = folder / f'{kind}.py'
    (folder / f'base_{kind}.py').write_text(MODELS[kind])
    text = COMMON.replace('{rest}', REST[kind]).replace('{kind}', kind)
    path.write_text(text.replace('{root}', str(make_data(folder, kind))))
    return path


def test_trains_and_is_tested_with_all_options(
    monkeypatch, config, kind, tmp_path
):
    if kind == 'det':  # for which None is the same as leaving it out
        config.write_text(config.read_text() + 'default_scope = None\n')
    work_dir = tmp_path / 'work'
    call(monkeypatch, 'train', config, '--work-dir', work_dir)
    out = tmp_path / 'out.pkl' if kind == 'det' else tmp_path / 'out'
    call(
        monkeypatch,
        'test',
        *(config, work_dir / 'iter_1.pth', '--work-dir', work_dir),
        *('--tta', '--out', out, '--show-dir', tmp_path / 'painted'),
    )
    if kind == 'det':
        assert len(pickle.loads(out.read_bytes())) == 2
    else:
        assert len([*out.iterdir()]) == 2
        assert len([*(tmp_path / 'painted').rglob('*.png')]) == 2
    written = [*work_dir.glob('*/*.py')]
    assert len(written) == 2
    for path in written:
        assert library_of(Config.fromfile(path)).endswith(kind)
    assert dict(seg='|  spiral  |', det='bbox_mAP')[kind] in log_of(work_dir)


def test_mixed_precision_knows_the_optimizer_wrapper(config):
    for device, kind in (
        ('cuda', 'AmpOptimWrapper'),
        ('cpu', 'CPUAmpOptimWrapper'),
    ):
        cfg = Config.fromfile(config)
        use_amp(cfg, device)
        assert type_name(cfg.optim_wrapper) == kind
        # As in a config that a run has written.
        use_amp(cfg, device)
        assert type_name(cfg.optim_wrapper) == kind


def test_data_and_weights_are_checked(monkeypatch, config, kind, tmp_path):
    weights = save_weights(tmp_path / 'a.pth', config)
    options = dict(
        seg=('model.decode_head.num_classes=6', 'decode_head'),
        det=('model.bbox_head.num_classes=6', 'bbox_head'),
    )
    option, words = options[kind]
    arguments = config, '--work-dir', tmp_path / 'work', '--cfg-options'
    sentence = error(monkeypatch, 'train', *arguments, option)
    assert f'{words} has num_classes=6' in sentence
    option = dict(seg='embed_dims=16', det='depth=34')[kind]
    sentence = error(
        monkeypatch,
        'test',
        *(config, weights, '--work-dir', tmp_path / 'work'),
        *('--cfg-options', f'model.backbone.{option}'),
    )
    assert 'weights fit; ' in sentence
    sentence = error(
        monkeypatch,
        'train',
        *arguments,
        f'train_dataloader.dataset.data_root={tmp_path}',
    )
    library = dict(seg='mmsegmentation', det='mmdetection')[kind]
    assert 'which does not exist' in sentence and library in sentence


def test_a_class_that_is_not_there_is_named(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    for text in (
        'model = dict(type=No)',
        'from mmseg.models import EncoderDecoder\n'
        'model = dict(type=EncoderDecoder, parts=[dict(type=No)])',
    ):
        path.write_text(f'from mmseg.models import No\n{text}')
        sentence = error(monkeypatch, 'train', path)
        assert sentence.startswith(f'{path}: Failed to import No ')
