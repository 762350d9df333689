"""Scenes whose depth is known, and their files."""

import cv2
import numpy as np
import pytest

from mmsapa.datasets.demo_data import make_dataset
from mmsapa.datasets.depth_scenes import (
    FARTHEST,
    NEAREST,
    make_depth_scene,
    put_before,
)


@pytest.fixture(scope='module')
def scenes():
    return [make_depth_scene(seed, 96) for seed in range(12)]


def test_depth_is_within_a_room(scenes):
    depth = np.stack([scene.depth for scene in scenes])
    assert depth.dtype == np.float32
    assert NEAREST <= depth.min() < 1 and 7 < depth.max() <= FARTHEST
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == scene.parts.dtype == np.uint8
        # Near and far are in every picture.
        assert scene.depth.max() > 2 * scene.depth.min()


def test_shapes_are_flat(scenes):
    """Inverse depth of a plane is an affine function of the pixel."""
    rows, columns = np.mgrid[:96, :96]
    design = np.stack([rows, columns, np.ones_like(rows)], 2) / 96
    flat = 0
    for scene in scenes:
        for part in range(1, scene.parts.max() + 1):
            here = scene.parts == part
            if here.sum() < 10:
                continue
            inverse = 1 / scene.depth[here]
            plane = np.linalg.lstsq(design[here], inverse, rcond=None)[0]
            np.testing.assert_allclose(design[here] @ plane, inverse, 1e-3)
            flat += 1
    assert flat > 40


def test_shapes_are_before_the_room(scenes):
    """Around a shape, what is not a shape is behind it."""
    for scene in scenes:
        for part in range(1, scene.parts.max() + 1):
            here = (scene.parts == part).astype(np.uint8)
            around = cv2.dilate(here, np.ones((3, 3))) > 0
            room = scene.depth[around & (scene.parts == 0)]
            if here.any() and room.size:
                nearest = scene.depth[here > 0].min()
                assert np.median(room) > 0.97 * nearest


@pytest.mark.parametrize('order', [(1, 2), (2, 1)])
def test_the_nearer_hides_the_farther(order):
    front, parts = np.full((2, 6), 0.1), np.zeros((2, 6), np.uint8)
    surfaces = {
        # Columns and distance; 2 leans, and is behind 1 on its right.
        1: (slice(0, 4), np.full(6, 0.5)),
        2: (slice(2, 6), np.array([0.8, 0.8, 0.8, 0.4, 0.05, 0.2])),
    }
    for number in order:
        columns, inverse = surfaces[number]
        mask = np.zeros((2, 6), bool)
        mask[:, columns] = True
        put_before(front, parts, mask, np.tile(inverse, (2, 1)), number)
    assert parts.tolist() == [[1, 1, 2, 1, 0, 2]] * 2
    assert front.tolist() == [[0.5, 0.5, 0.8, 0.5, 0.1, 0.2]] * 2


def test_sensors_miss_what_is_right_of_something_nearer(scenes):
    missed = np.mean([~scene.seen for scene in scenes])
    assert 0.002 < missed < 0.1
    for scene in scenes:
        rows, columns = np.nonzero(~scene.seen)
        for row, column in zip(rows, columns):
            before = scene.depth[row, max(column - 6, 0) : column]
            assert before.min() < scene.depth[row, column]


def test_thin_parts_are_there(scenes):
    """Some shapes vanish when a pixel is taken from each of their sides."""
    thin = 0
    for scene in scenes:
        for part in range(1, scene.parts.max() + 1):
            here = (scene.parts == part).astype(np.uint8)
            left = cv2.erode(here, np.ones((5, 5)))
            thin += here.any() and not left.any()
    assert thin > len(scenes)


def test_distant_colors_are_those_of_haze(scenes):
    """Which is one of the things that tell depth."""
    depth = np.concatenate([scene.depth.ravel() for scene in scenes])
    colors = np.concatenate([scene.image.reshape(-1, 3) for scene in scenes])
    spread = [
        colors[(depth > low) & (depth < low + 1.5)].std()
        for low in (0.5, 3, 6)
    ]
    assert spread[0] > spread[1] > spread[2]


def test_files_hold_millimeters_and_what_is_missing(tmp_path):
    make_dataset(str(tmp_path), 'nyu', 2, 1, 64, nproc=1)
    root = tmp_path / 'nyu'
    seed = np.random.SeedSequence(0, spawn_key=(0, 2))
    scene = make_depth_scene(seed, 64)
    path = root / 'sync/room_0001/sync_depth_00002.png'
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and (stored == 0).any()
    np.testing.assert_array_equal(stored == 0, ~scene.seen)
    known = stored > 0
    np.testing.assert_allclose(
        stored[known] / 1000, scene.depth[known], atol=6e-4
    )
    # The lists are written as BTS writes its own.
    lines = [
        (root / f'nyudepthv2_{split}_files_with_gt.txt').read_text()
        for split in ('train', 'test')
    ]
    assert lines[0].splitlines()[1] == (
        '/room_0001/rgb_00002.jpg /room_0001/sync_depth_00002.png 64.0000'
    )
    assert lines[1] == 'room/rgb_00001.jpg room/sync_depth_00001.png 64.0000\n'


def test_the_data_set_reads_them(tmp_path, scope):
    pytest.importorskip('mmseg')
    from mmseg.registry import DATASETS

    scope('mmseg')
    make_dataset(str(tmp_path), 'nyu', 2, 1, 32, nproc=1)
    for split, folder, count in (
        ('train', 'sync', 2),
        ('test', 'official_splits/test', 1),
    ):
        dataset = DATASETS.build(
            dict(
                type='mmsapa.NYUDepthDataset',
                data_root=str(tmp_path / 'nyu'),
                ann_file=f'nyudepthv2_{split}_files_with_gt.txt',
                data_prefix=dict(img_path=folder),
            )
        )
        assert len(dataset) == count
        assert dataset.get_data_info(0)['focal'] == 32
