import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData

from mmsapa.registry import VISUALIZERS
from mmsapa.visualization.depth_maps import depth_colors

SETTINGS = dict(type='mmsapa.DepthVisualizer')


def sample(*depths, known=True):
    """What is predicted: a depth for each third of the width."""
    depth = torch.tensor(depths).repeat_interleave(20)
    depth = PixelData(data=depth.expand(1, 48, -1))
    found = BaseDataElement(pred_depth_map=depth)
    if known:
        found.gt_depth_map = depth
    return found


def draw(path, found, **settings):
    """Return the picture of a sample, RGB."""
    image = np.zeros((48, 60, 3), np.uint8)
    # mmengine keeps one of a name in a process.
    settings = dict(SETTINGS, name=str(path), **settings)
    visualizer = VISUALIZERS.build(settings)
    visualizer.add_datasample('x', image, found, out_file=str(path))
    return cv2.imread(str(path))[..., ::-1]


def test_a_color_means_the_same_depth_in_all_pictures(tmp_path):
    expected = depth_colors(0.5, 10).to_rgba(2.0, bytes=True)[:3]
    first, second = (
        draw(tmp_path / f'{depths[0]}.png', sample(*depths))
        for depths in ((1.0, 2.0, 9.0), (2.0, 4.0, 0.1))
    )
    areas = [(picture == expected).all(-1) for picture in (first, second)]
    # A third of the map, in truth and prediction.
    for area in areas:
        assert 0.1 < area.mean() < 0.3
    assert areas[0].nonzero()[1].min() > areas[1].nonzero()[1].min()
    alone = draw(tmp_path / 'a.png', sample(1.0, 2.0, 9.0, known=False))
    assert 0.1 < (alone == expected).all(-1).mean() < 0.3
    far = draw(tmp_path / 'b.png', sample(1.0, 2.0, 9.0), max_depth=80)
    assert (far == expected).all(-1).mean() < 0.02


def test_pictures_reach_the_backends(tmp_path):
    visualizer = VISUALIZERS.build(
        dict(
            SETTINGS,
            name=str(tmp_path),
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(tmp_path),
        )
    )
    image = np.zeros((48, 640, 3), np.uint8)
    depth = PixelData(data=torch.ones(1, 48, 640))
    found = BaseDataElement(pred_depth_map=depth, gt_depth_map=depth)
    visualizer.add_datasample('room', image, found, step=7)
    (path,) = tmp_path.rglob('room_7.png')
    # Image, truth and prediction lose no pixels.
    assert cv2.imread(str(path)).shape[1] > 3 * 640


def test_mistakes_are_named(tmp_path):
    for settings in dict(min_depth=0), dict(min_depth=11):
        with pytest.raises(ValueError, match='0 < min_depth < max_depth, got'):
            VISUALIZERS.build(dict(SETTINGS, name='bad', **settings))
    with pytest.raises(ValueError, match='pred_depth_map, got gt_depth_map'):
        found = sample(1.0)
        draw(tmp_path / 'a.png', BaseDataElement(gt_depth_map=found))
