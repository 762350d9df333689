"""Every config parses, builds, trains a step and predicts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch.utils.flop_counter import FlopCounterMode

from .upsamplers.test_sapa import expected_macs

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob('*/*.py')
    if '_base_' not in path.parts
)
SEGFORMER = 'segformer/segformer_mit-b1_sapa-{}_1xb16-160k_ade20k-512x512.py'
FASTER_RCNN = 'faster_rcnn/faster-rcnn_r50_fpn-sapa-{}_1x_coco.py'


def load(config, scope):
    cfg = Config.fromfile(ROOT / config)
    pytest.importorskip(cfg.default_scope)
    scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None  # no download
    if cfg.default_scope == 'mmseg':
        # Not the crop of the training data, which is large for a test.
        cfg.model.data_preprocessor.size = None
        cfg.model.data_preprocessor.size_divisor = 32
    return cfg


def segmentation_sample(height, width):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(
        metainfo=dict(
            ori_shape=(height, width),
            img_shape=(height, width),
            pad_shape=(height, width),
        )
    )
    truth = torch.randint(0, 5, (1, height, width))
    sample.gt_sem_seg = PixelData(data=truth)
    return sample


def detection_sample(height, width):
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo=dict(
            ori_shape=(height, width),
            img_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 40, 40], [20, 30, 90, 60]]),
        labels=torch.tensor([0, 1]),
    )
    return sample


def batch(library, height=64, width=96):
    make = segmentation_sample if library == 'mmseg' else detection_sample
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    return dict(
        inputs=list(images),
        data_samples=[make(height, width) for _ in range(2)],
    )


def training_loss(model, data):
    data = model.data_preprocessor(data, training=True)
    losses = model(**data, mode='loss')
    return model.parse_losses(losses)[0]


def assert_upsamplers_learn(model):
    grads = {
        name: p.grad
        for name, p in model.named_parameters()
        if 'upsamplers' in name
    }
    assert grads
    for name, grad in grads.items():
        assert grad.isfinite().all() and grad.abs().sum() > 0, name


@pytest.mark.parametrize('config', CONFIGS)
def test_trains_and_predicts(config, scope, device):
    cfg = load(config, scope)
    model = MODELS.build(cfg.model).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    loss = training_loss(model, batch(cfg.default_scope))
    loss.backward()
    assert loss.isfinite()
    assert_upsamplers_learn(model)
    optimizer.step()

    model.eval()
    # Not a multiple of anything, as ADE20K's images are.
    data = batch(cfg.default_scope, 75, 101)
    results = model.test_step(data)
    assert len(results) == 2
    if cfg.default_scope == 'mmseg':
        assert results[0].pred_sem_seg.data.shape == (1, 75, 101)
    else:
        assert results[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize('config', CONFIGS)
def test_trains_under_autocast(config, scope, device):
    cfg = load(config, scope)
    model = MODELS.build(cfg.model).to(device).train()
    autocast = torch.autocast(device, torch.bfloat16)
    if cfg.default_scope == 'mmdet' and device == 'cpu':
        # On a CPU mmcv's NMS takes no bfloat16: the heads stay in float32.
        extract_feat = autocast(model.extract_feat)
        model.extract_feat = lambda x: [f.float() for f in extract_feat(x)]
        loss = training_loss(model, batch(cfg.default_scope))
    else:
        with autocast:
            loss = training_loss(model, batch(cfg.default_scope))
    loss.backward()
    assert loss.isfinite()
    assert_upsamplers_learn(model)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ('variant', 'more'),
    [
        # Six modules of 256 channels, by the formulas of the layer's tests.
        ('i', 6 * 4 * 256),
        ('b', 104_832),
        ('g', 104_832 + 6 * (32 * 256 + 32 + 256 + 1)),
    ],
)
def test_parameters_added_to_segformer(variant, more, scope):
    cfg = load(SEGFORMER.format(variant), scope)
    model = MODELS.build(cfg.model)
    cfg.model.decode_head.upsample_cfg = dict(type='bilinear')
    assert parameters(model) - parameters(MODELS.build(cfg.model)) == more


@pytest.mark.parametrize(
    ('variant', 'more'),
    [
        ('i', 3 * 4 * 256),
        ('b', 104_832 // 2),
        ('g', 104_832 // 2 + 3 * (32 * 256 + 32 + 256 + 1)),
    ],
)
def test_parameters_added_to_faster_rcnn(variant, more, scope):
    cfg = load(FASTER_RCNN.format(variant), scope)
    model = MODELS.build(cfg.model)
    cfg.model.neck.upsample_cfg = dict(type='nearest')
    assert parameters(model) - parameters(MODELS.build(cfg.model)) == more


@pytest.mark.parametrize('variant', ['i', 'b', 'g'])
def test_flops_added_to_segformer(variant, scope):
    """Six modules by the paper's formulas, each with its low-res map."""
    cfg = load(SEGFORMER.format(variant), scope)
    inputs = [
        torch.randn(1, c, 128 // s, 128 // s)
        for c, s in ((64, 4), (128, 8), (320, 16), (512, 32))
    ]
    counts = []
    for upsample_cfg in (
        cfg.model.decode_head.upsample_cfg,
        dict(type='bilinear'),
    ):
        cfg.model.decode_head.upsample_cfg = upsample_cfg
        head = MODELS.build(cfg.model).decode_head.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            head(inputs)
        # torch's counter takes a multiply-accumulate for two.
        counts.append(counter.get_total_flops() // 2)
    assert counts[0] - counts[1] == sum(
        expected_macs(variant.upper(), (128 // stride) ** 2, 256, 256)
        for stride in (8, 8, 8, 16, 16, 32)
    )


def test_an_image_of_ade20k_goes_end_to_end(tmp_path, scope):
    """683 x 512: neither the image nor its feature maps halve evenly."""
    cfg = load(SEGFORMER.format('g'), scope)
    for folder, pixels, ending in (
        ('images', np.random.randint(0, 256, (512, 683, 3)), 'jpg'),
        ('annotations', np.random.randint(0, 151, (512, 683)), 'png'),
    ):
        (tmp_path / folder / 'validation').mkdir(parents=True)
        path = tmp_path / folder / 'validation' / f'ADE_val_00000001.{ending}'
        cv2.imwrite(str(path), pixels.astype(np.uint8))
    cfg.work_dir = str(tmp_path / 'work')
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    seen = []
    runner = Runner.from_cfg(cfg)
    for row in runner.model.decode_head.upsamplers:
        for slot in row:
            slot.register_forward_hook(
                lambda module, inputs, out: seen.append(out.shape[2:])
            )
    assert 0 <= runner.test()['mIoU'] < 5
    # Resized up to 512 x 704, a multiple of 32.
    assert set(seen) == {(32, 44), (64, 88), (128, 176)}
    seen.clear()
    with torch.no_grad():
        runner.model(torch.randn(1, 3, 512, 683))
    assert set(seen) == {(32, 43), (64, 86), (128, 171)}
