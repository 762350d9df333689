"""Loading of depth, and BTS's augmentation."""

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.dataset import Compose  # noqa: E402
from mmseg.models import SegDataPreProcessor  # noqa: E402

from mmsapa.datasets.depth_transforms import (  # noqa: E402
    FixedCrop,
    LoadDepthAnnotation,
    RandomGammaColor,
)
from mmsapa.engine.config import ConfigError  # noqa: E402

# What the frame of NYU Depth v2 leaves.
FRAME = dict(rows=(45, 472), columns=(43, 608))


def write(path, pixels):
    cv2.imwrite(str(path), pixels)
    return str(path)


def load(path, **results):
    results = dict(results, depth_map_path=str(path), seg_fields=[])
    return LoadDepthAnnotation()(results)


def sample(height=48, width=64):
    """An image whose red is the row and green the column, as the depth."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([0 * rows, columns, rows], 2).astype(np.uint8)
    depth = (100 * rows + columns).astype(np.float32)
    return dict(
        img=image,
        gt_depth_map=depth,
        seg_fields=['gt_depth_map'],
        img_shape=image.shape[:2],
    )


def fits(results):
    """Whether every pixel has the depth of its place."""
    image = results['img'].astype(np.float32)
    return np.array_equal(
        100 * image[..., 2] + image[..., 1], results['gt_depth_map']
    )


# ------------------------------------------------------------------ loading


def test_depth_is_loaded_in_meters(tmp_path):
    path = write(tmp_path / 'a.png', np.array([[0, 1], [2500, 65535]], 'u2'))
    found = load(path)
    assert found['gt_depth_map'].dtype == np.float32
    np.testing.assert_allclose(
        found['gt_depth_map'], [[0, 0.001], [2.5, 65.535]], rtol=1e-6
    )
    assert found['seg_fields'] == ['gt_depth_map']
    kitti = LoadDepthAnnotation(depth_rescale_factor=1 / 256)
    depth = kitti(dict(depth_map_path=path, seg_fields=[]))['gt_depth_map']
    assert depth[1, 0] == 2500 / 256


@pytest.mark.parametrize(
    ('pixels', 'got'),
    [
        (np.ones((4, 4), np.uint8), '8 bits and 1 channels'),
        (np.ones((4, 4, 3), np.uint8), '8 bits and 3 channels'),
        (np.ones((4, 4, 3), np.uint16), '16 bits and 3 channels'),
    ],
)
def test_other_pngs_are_refused(tmp_path, pixels, got):
    path = write(tmp_path / 'a.png', pixels)
    with pytest.raises(ConfigError, match=f'^{path}: .* got {got}; write'):
        load(path)


@pytest.mark.parametrize('content', [b'', b'no image'])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match='and one channel, got no image'):
        load(path)
    path.unlink()
    with pytest.raises(ConfigError, match=f'^{path}: expected a depth map'):
        load(path)


def test_depth_of_another_size_is_refused(tmp_path):
    path = write(tmp_path / 'a.png', np.ones((4, 6), np.uint16))
    load(path, ori_shape=(4, 6))
    with pytest.raises(ConfigError, match='image, 8 x 4, got 6 x 4; pair it'):
        load(path, ori_shape=(4, 8))


# ----------------------------------------------------------------- the frame


def test_the_frame_is_cut_off():
    results = FixedCrop(**FRAME)(sample(480, 640))
    assert results['img'].shape == (427, 565, 3)
    assert results['img_shape'] == (427, 565)
    # Rows 45 to 471 and columns 43 to 607, in the image modulo 256.
    assert results['gt_depth_map'][0, 0] == 100 * 45 + 43
    assert results['gt_depth_map'][-1, -1] == 100 * 471 + 607
    assert (results['img'][0, 0] == [0, 43, 45]).all()
    assert (results['img'][-1, -1] == [0, 607 - 512, 471 - 256]).all()


def test_a_smaller_image_has_no_such_frame():
    with pytest.raises(ConfigError) as caught:
        FixedCrop(**FRAME)(dict(sample(240, 320), img_path='a.jpg'))
    assert str(caught.value) == (
        'a.jpg: expected an image of at least 608 x 472, which FixedCrop '
        'cuts, got 320 x 240; set its rows and columns for this size.'
    )
    for rows in ((5, 5), (-1, 5)):
        with pytest.raises(ValueError, match='expected rows such as'):
            FixedCrop(rows=rows, columns=(0, 5))


# -------------------------------------------------------------------- colors


def test_colors_are_those_of_the_formula():
    jitter = RandomGammaColor(
        prob=1, gamma=(1.1, 1.1), brightness=(0.8, 0.8), color=(1.05, 1.05)
    )
    image = np.array([[[0, 51, 255]]], np.uint8)
    changed = jitter(dict(img=image))['img']
    assert changed.dtype == np.float32
    expected = 255 * np.array([0, 0.2, 1]) ** 1.1 * 0.8 * 1.05
    np.testing.assert_allclose(changed[0, 0], expected, rtol=1e-6)


def test_colors_are_clipped_and_channels_differ():
    np.random.seed(0)
    jitter = RandomGammaColor(prob=1)
    image = np.full((2, 2, 3), 128, np.uint8)
    seen = np.array([jitter(dict(img=image))['img'][0, 0] for _ in range(300)])
    assert (seen[:, 0] != seen[:, 1]).all()
    # 0.5 ** 1.1 * 0.75 * 0.9 and 0.5 ** 0.9 * 1.25 * 1.1, of 255.
    assert 80 < seen.min() < 95 and 172 < seen.max() < 189
    # Brightness is common to the channels.
    assert np.corrcoef(seen[:, 0], seen[:, 1])[0, 1] > 0.7
    white = np.full((2, 2, 3), 255, np.uint8)
    seen = [jitter(dict(img=white))['img'].max() for _ in range(30)]
    assert max(seen) == 255


def test_every_second_image_keeps_its_colors():
    np.random.seed(0)
    image = np.full((2, 2, 3), 128, np.uint8)
    jitter = RandomGammaColor()
    kept = sum(
        jitter(dict(img=image))['img'].dtype == np.uint8 for _ in range(400)
    )
    assert 160 < kept < 240


@pytest.mark.parametrize(
    ('name', 'value'),
    [('prob', 1.5), ('gamma', (0, 1)), ('color', (1.1, 0.9))],
)
def test_bad_ranges_are_named(name, value):
    with pytest.raises(ValueError, match=f'expected {name} to be '):
        RandomGammaColor(**{name: value})


# -------------------------------------------------- with MMSegmentation's own


def test_depth_follows_flip_and_crop(scope):
    scope('mmseg')
    np.random.seed(0)
    steps = Compose(
        [
            dict(type='RandomCrop', crop_size=(16, 32)),
            dict(type='RandomFlip', prob=0.5),
        ]
    )
    flips, corners = [], set()
    for _ in range(40):
        results = steps(sample())
        assert results['img'].shape == (16, 32, 3)
        assert fits(results)
        flips.append(results['flip'])
        corners.add(results['gt_depth_map'].min())
    assert 8 < sum(flips) < 32 and len(corners) > 20


def test_rotation_takes_nearest_depth_and_none_in_the_corners(scope):
    scope('mmseg')
    np.random.seed(1)
    rotate = dict(type='RandomRotate', prob=1.0, degree=2.5, seg_pad_val=0)
    results = Compose([rotate])(sample())
    depth, image = results['gt_depth_map'], results['img']
    original = sample()['gt_depth_map']
    assert depth.shape == original.shape
    assert set(depth.ravel()) <= set(original.ravel())
    corners = depth[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).sum() >= 2
    # The middle moves less than a pixel, borders more.
    assert depth[24, 32] == original[24, 32]
    assert (depth[:, 1] != original[:, 1]).any()
    # Depth and image turn the same way.
    inside = depth > 0
    off = 100 * image[..., 2].astype(float) + image[..., 1] - depth
    assert np.median(abs(off[inside])) < 60


def test_the_pipeline_of_bts_makes_batches(scope, tmp_path):
    """Files of 480x640 in, normalized crops and depth in meters out."""
    scope('mmseg')
    np.random.seed(0)
    image = np.random.randint(0, 256, (480, 640, 3), np.uint8)
    steps = np.random.randint(700, 9000, (480, 640)).astype(np.uint16)
    info = dict(
        img_path=write(tmp_path / 'rgb.png', image),
        depth_map_path=write(tmp_path / 'depth.png', steps),
        seg_fields=[],
    )
    pipeline = Compose(
        [
            dict(type='LoadImageFromFile'),
            dict(type='mmsapa.LoadDepthAnnotation'),
            dict(type='mmsapa.FixedCrop', **FRAME),
            dict(type='RandomRotate', prob=1.0, degree=2.5, seg_pad_val=0),
            dict(type='RandomCrop', crop_size=(416, 544)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='mmsapa.RandomGammaColor'),
            dict(type='PackSegInputs'),
        ]
    )
    items = [pipeline(dict(info, seg_fields=[])) for _ in range(6)]
    # Some images are floats.
    assert {item['inputs'].dtype for item in items} == {
        torch.uint8,
        torch.float32,
    }
    preprocess = SegDataPreProcessor(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(416, 544),
        seg_pad_val=0,
    )
    batch = preprocess(
        dict(
            inputs=[item['inputs'] for item in items],
            data_samples=[item['data_samples'] for item in items],
        ),
        training=True,
    )
    assert batch['inputs'].shape == (6, 3, 416, 544)
    assert batch['inputs'].abs().max() < 3
    for sample in batch['data_samples']:
        depth = sample.gt_depth_map.data
        assert depth.shape == (1, 416, 544) and depth.dtype == torch.float32
        known = depth[depth > 0]
        assert known.min() >= 0.7 and known.max() < 9
        assert known.numel() > 0.9 * depth.numel()
