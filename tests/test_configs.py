"""Every config parses, builds, trains a step and predicts."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.datasets.demo_data import CLASSES, make_scene
from mmsapa.engine.config import read_config

from .upsamplers.helpers import assert_initialized, sapa_macs

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob('*/*.py')
    if '_base_' not in path.parts
)
SEGFORMER = 'segformer/segformer_mit-b1_sapa-{}_1xb16-160k_ade20k-512x512.py'
AUTOCAST = (
    'demo/segformer_mit-b1_sapa-g_demo.py',
    'demo/faster-rcnn_r50_fpn-sapa-g_demo.py',
)
# Of models that no library has; without the slots' layers they are stock.
OURS_ALONE = {
    f'mmsapa.{name}'
    for name in (
        *('StemResNet', 'BTSHead', 'Mattor', 'MattingDataPreprocessor'),
        *('MattingResNet', 'A2UHead', 'MattingLoss'),
        *('SegNetVGG', 'SegNetHead', 'BalancedCrossEntropyLoss'),
    )
}
FASTER_RCNN = 'faster_rcnn/faster-rcnn_r50_fpn-sapa-{}_1x_coco.py'


@pytest.mark.parametrize('config', CONFIGS)
def test_the_rate_is_that_of_the_batch_that_it_is_scaled_from(config):
    """What --auto-scale-lr goes by."""
    cfg = read_config(ROOT / config)
    pytest.importorskip(cfg.default_scope)
    gpus = re.search(r'_(\d)xb\d', config)
    gpus = int(gpus[1]) if gpus else 1 if 'demo' in config else 8
    expected = gpus * cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == expected
    assert not cfg.auto_scale_lr.get('enable')


def load(config, scope):
    cfg = read_config(ROOT / config)
    pytest.importorskip(cfg.default_scope)
    scope(cfg.default_scope)
    # No download.
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.init_cfg = None
    # Nor sizes that depend on how far training is.
    cfg.model.data_preprocessor.pop('batch_augments', None)
    if cfg.default_scope == 'mmseg':
        # Not the crop of the training data, which is large for a test.
        cfg.model.data_preprocessor.size = None
        cfg.model.data_preprocessor.size_divisor = 32
    elif 'rpn_proposal' in cfg.model.get('train_cfg', {}):
        # Nor a thousand boxes.
        cfg.model.train_cfg.rpn_proposal.max_per_img = 50
        rcnn = cfg.model.train_cfg.rcnn
        for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
            stage.sampler.num = 32
        cfg.model.test_cfg.rpn.max_per_img = 50
    return cfg


def segmentation_sample(scene):
    from mmseg.structures import SegDataSample

    sample = SegDataSample()
    # Stored labels less one, as reduce_zero_label has them: 0 is ignored.
    truth = scene.semantic()[None] - np.uint8(1)
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth).long())
    # Meters, for depth estimators; each shape has its own.
    depth = scene.instances[None].astype(np.float32) + 1
    sample.gt_depth_map = PixelData(data=torch.from_numpy(depth))
    return sample


def detection_sample(scene):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    shapes = [
        i for i, label in enumerate(scene.labels) if label < len(CLASSES)
    ]
    masks = np.stack([scene.instances == i + 1 for i in shapes])
    masks = BitmapMasks(masks.astype(np.uint8), *masks.shape[1:])
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        bboxes=masks.get_bboxes('hbox').tensor,
        labels=torch.tensor([scene.labels[i] for i in shapes]),
        masks=masks,
    )
    # Panoptic FPN's: the things come first, the ground is stuff.
    table = np.array([80, *scene.labels], np.uint8)
    table[table == len(CLASSES)] = 255
    sample.gt_sem_seg = PixelData(
        sem_seg=torch.from_numpy(table[scene.instances])[None].long()
    )
    return sample


def matting_sample(scene, height, width):
    from mmsapa.matting import MattingDataSample

    # The shapes are the foreground, and around them it is unknown.
    alpha = (scene.instances[:height, :width] > 0).astype(np.float32)
    trimap = np.full(alpha.shape, 128, np.uint8)
    for known, value in ((alpha > 0, 255), (alpha == 0, 0)):
        trimap[cv2.erode(known.astype(np.uint8), np.ones((5, 5))) > 0] = value
    ground = torch.full((3, height, width), 127.0)
    parts = dict(
        trimap=torch.from_numpy(trimap)[None],
        gt_alpha=torch.from_numpy(alpha)[None],
        gt_fg=2 * ground,
        gt_bg=ground,
    )
    return MattingDataSample(
        **{name: PixelData(data=value) for name, value in parts.items()}
    )


def batch(library, size=64, cut=(64, 64)):
    """Two of the demo's scenes, as the loader hands them to a model."""
    make = dict(
        mmseg=segmentation_sample,
        mmdet=detection_sample,
        mmsapa=lambda scene: matting_sample(scene, *cut),
    )[library]
    inputs, samples = [], []
    for seed in range(2):
        scene = make_scene(seed, size)
        image = scene.image[: cut[0], : cut[1]].transpose(2, 0, 1)
        inputs.append(torch.from_numpy(image.copy()))
        samples.append(make(scene))
        samples[-1].set_metainfo(
            dict(ori_shape=cut, img_shape=cut, scale_factor=(1.0, 1.0))
        )
    return dict(inputs=inputs, data_samples=samples)


def training_loss(model, data):
    torch.manual_seed(0)  # the same dropout and samples of boxes
    data = model.data_preprocessor(copy.deepcopy(data), training=True)
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


# The others differ in the layer's variant, the depth of the backbone, or as
# SegNet's in the data alone; tests of the tools train the demo's.
ALIKE = ('r101', '_camvid-360x480', '_horse-', 'demo/')


@pytest.mark.parametrize(
    'config',
    [
        c
        for c in CONFIGS
        if 'sapa-g' in c and not any(part in c for part in ALIKE)
    ],
)
def test_trains_and_predicts(config, scope, device):
    cfg = load(config, scope)
    library = cfg.default_scope
    if 'swin' in config:
        cfg.model.backbone.depths = [1, 1, 1, 1]  # of 2, 2, 18, 2 blocks
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    data = batch(library)
    losses = []
    for _ in range(2):
        loss = training_loss(model, data)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert_upsamplers_learn(model)
        optimizer.step()
    assert training_loss(model, data) < losses[0] < np.inf

    # One of each library: on many CPUs bfloat16 takes ten times as long.
    if config in AUTOCAST:
        optimizer.zero_grad()
        loss = loss_under_autocast(model, data, library, device)
        loss.backward()
        assert loss.isfinite()
        assert_upsamplers_learn(model)

    model.eval()
    # Not a multiple of anything, as ADE20K's images are.
    results = model.test_step(batch(library, 128, (75, 101)))
    assert len(results) == 2
    if cfg.model.type == 'DepthEstimator':
        assert results[0].pred_depth_map.data.shape == (1, 75, 101)
    elif library == 'mmsapa':
        assert results[0].pred_alpha.data.shape == (1, 75, 101)
    elif library == 'mmseg':
        assert results[0].pred_sem_seg.data.shape == (1, 75, 101)
    elif 'panoptic' in config:
        assert results[0].pred_panoptic_seg.sem_seg.shape == (1, 75, 101)
    else:
        instances = results[0].pred_instances
        assert instances.bboxes.shape[1] == 4
        if 'mask' in config:
            assert instances.masks.shape[1:] == (75, 101)


def loss_under_autocast(model, data, library, device):
    autocast = torch.autocast(device, torch.bfloat16)
    if library == 'mmseg':
        with autocast:
            return training_loss(model, data)
    # mmcv's NMS and RoIAlign take no bfloat16: the heads stay in float32.
    extract_feat = autocast(model.extract_feat)
    model.extract_feat = lambda x: [f.float() for f in extract_feat(x)]
    loss = training_loss(model, data)
    del model.extract_feat
    return loss


def stock(node):
    """The same config without anything of ours."""
    if isinstance(node, list):
        return [stock(item) for item in node]
    if not isinstance(node, dict):
        return node
    ours = str(node.get('type')).startswith('mmsapa.')
    node = {
        key: stock(value)
        for key, value in node.items()
        if not (ours and key in ('upsample_cfg', 'embedding'))
    }
    if ours and node['type'] not in OURS_ALONE:
        node['type'] = node['type'].partition('.')[2]
        if node['type'] == 'SegFPN':
            node['type'] = 'FPN'
        if node['type'].endswith('PixelDecoder'):
            node['type'] = f'mmdet.{node["type"]}'
    return ConfigDict(node)


def shapes(model):
    state = MODELS.build(model).state_dict()
    return {name: value.shape for name, value in state.items()}


@pytest.fixture
def unfilled(monkeypatch):
    """Build convolutions and linear layers without drawing their weights."""
    for layer in torch.nn.Conv2d, torch.nn.Linear:
        monkeypatch.setattr(layer, 'reset_parameters', lambda self: None)


@pytest.mark.parametrize('config', [c for c in CONFIGS if 'sapa' in c])
def test_holds_all_that_a_stock_checkpoint_does(config, scope, unfilled):
    """And nothing else but the upsamplers: what fine-tuning starts from."""
    cfg = load(config, scope)
    parent = shapes(stock(cfg.model))
    if 'segformer' in config:
        # The authors' linear embedding is one of a kind.
        cfg.model.decode_head.embedding = 'conv'
    child = shapes(cfg.model)
    assert parent.items() < child.items()
    for name in child.keys() - parent.keys():
        assert '.upsamplers.' in name


def test_fine_tuning_starts_from_a_stock_checkpoint(scope, tmp_path):
    cfg = load('demo/faster-rcnn_r50_fpn-sapa-g_demo.py', scope)
    trained = MODELS.build(stock(cfg.model)).state_dict()
    torch.save(dict(meta={}, state_dict=trained), tmp_path / 'stock.pth')
    cfg.load_from = str(tmp_path / 'stock.pth')
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    runner.load_or_resume()
    state = runner.model.state_dict()
    for key in trained:
        assert torch.equal(state[key], trained[key])
    for slot in runner.model.neck.upsamplers:
        assert_initialized(slot.layer)


NECK = "neck=dict(type='mmsapa.{}', upsample_cfg=dict(type='sapa'))"
OTHERS = {
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': NECK.format('FPN'),
    'mmdet::pafpn/faster-rcnn_r50_pafpn_1x_coco.py': NECK.format('PAFPN'),
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py': NECK.format('YOLOXPAFPN'),
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py': NECK.format(
        'CSPNeXtPAFPN'
    ),
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py': NECK.format(
        'SegFPN'
    ),
}


@pytest.mark.parametrize('base', OTHERS)
def test_two_lines_put_sapa_into_any_other_model(base, scope, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{base}'\nmodel = dict({OTHERS[base]})\n")
    cfg = load(config, scope)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    data = batch(cfg.default_scope)
    if 'bbox_head' in cfg.model:
        # Detectors of one stage expect none.
        for sample in data['data_samples']:
            del sample.gt_instances.masks
    loss = training_loss(model, data)
    loss.backward()
    assert loss.isfinite()
    assert_upsamplers_learn(model)
    model.eval()
    assert len(model.test_step(batch(cfg.default_scope, 128, (75, 101)))) == 2


def test_a_config_finds_the_package_by_itself(tmp_path):
    """As in the README, in a process that has not imported it."""
    base, line = next(iter(OTHERS.items()))
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{base}'\nmodel = dict({line})\n")
    code = (
        'import sys\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import METRICS, MODELS, init_default_scope\n'
        f'cfg = Config.fromfile({str(config)!r})\n'
        "init_default_scope('mmdet')\n"
        "assert 'mmsapa' not in sys.modules\n"
        'cfg.model.backbone.init_cfg = None\n'
        'print(MODELS.build(cfg.model).neck.upsamplers)\n'
        "METRICS.build(dict(type='mmsapa.BoundaryIoU'))\n"
    )
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert '2 x UpsampleSlot' in result.stdout and 'SAPA(' in result.stdout


def parameters(model):
    return sum(p.numel() for p in MODELS.build(model).parameters())


@pytest.mark.parametrize(
    ('config', 'part', 'interpolation', 'steps'),
    [
        (SEGFORMER, 'decode_head', 'bilinear', 6),
        (FASTER_RCNN, 'neck', 'nearest', 3),
    ],
)
@pytest.mark.parametrize(
    ('variant', 'more'),
    [
        # A layer of 256 channels, by the formulas of the layer's tests.
        ('i', 4 * 256),
        ('b', 104_832 // 6),
        ('g', 104_832 // 6 + 32 * 256 + 32 + 256 + 1),
    ],
)
def test_parameters_added(
    config, part, interpolation, steps, variant, more, scope, unfilled
):
    cfg = load(config.format(variant), scope)
    ours = parameters(cfg.model)
    cfg.model[part].upsample_cfg = dict(type=interpolation)
    assert ours - parameters(cfg.model) == steps * more


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
        sapa_macs(variant.upper(), (128 // stride) ** 2, 256, 256)
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
