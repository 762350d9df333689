import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData

from mmsapa.registry import HOOKS, VISUALIZERS

SETTINGS = dict(type='mmsapa.MattingVisualizer')


def sample(path, **changes):
    """A matte that rises from left to right, with trimap and truth."""
    alpha = torch.linspace(0, 1, 60).expand(1, 48, 60)
    trimap = (255 * (alpha > 0.5)).to(torch.uint8)
    parts = dict(pred_alpha=alpha, trimap=trimap, gt_alpha=1 - alpha)
    found = BaseDataElement(metainfo=dict(img_path=str(path)))
    for name, value in {**parts, **changes}.items():
        if value is not None:
            found.set_data({name: PixelData(data=value)})
    return found


@pytest.fixture
def image(tmp_path):
    image = np.full((48, 60, 3), (10, 120, 230), np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), image[..., ::-1])
    return image


def draw(path, image, found, **options):
    # mmengine keeps one of a name in a process.
    visualizer = VISUALIZERS.build(dict(SETTINGS, name=str(path)))
    visualizer.add_datasample('x', image, found, out_file=str(path), **options)
    return cv2.imread(str(path))[..., ::-1]


def test_image_trimap_truth_and_matte_stand_in_a_row(image, tmp_path):
    path = tmp_path / 'a.png'
    found = sample(path)
    rows = draw(path, image, found)
    assert rows.shape == (48, 240, 3)
    np.testing.assert_array_equal(rows[:, :60], image)
    for i, key in enumerate(('trimap', 'gt_alpha', 'pred_alpha'), 1):
        values = found.get(key).data[0].numpy()
        if key != 'trimap':
            values = np.floor(255 * values)
        part = rows[:, 60 * i : 60 * (i + 1)]
        np.testing.assert_array_equal(part, values[..., None].repeat(3, 2))
    without = draw(tmp_path / 'b.png', image, found, draw_gt=False)
    assert without.shape == (48, 180, 3)


def test_mistakes_are_named(image, tmp_path):
    path = tmp_path / 'a.png'
    with pytest.raises(ValueError, match="got .'gt_alpha', 'trimap'.;"):
        draw(path, image, sample(path, pred_alpha=None))
    with pytest.raises(ValueError, match=r'image \[48, 60\], got .*\[9, 9\]'):
        draw(path, image, sample(path, pred_alpha=torch.ones(1, 9, 9)))


def test_the_hook_draws_when_its_turn_has_come(image, tmp_path):
    class Runner:
        iter = 7
        visualizer = VISUALIZERS.build(
            dict(
                SETTINGS,
                name=str(tmp_path),
                vis_backends=[dict(type='LocalVisBackend')],
                save_dir=str(tmp_path / 'out'),
            )
        )

    for draw, expected in ((False, 0), (True, 1)):
        hook = HOOKS.build(
            dict(type='mmsapa.MattingVisualizationHook', draw=draw, interval=2)
        )
        outputs = [sample(tmp_path / 'photo.png')]
        for batch in range(3):
            hook.after_test_iter(Runner, batch, None, outputs)
        found = [*(tmp_path / 'out').rglob('test_photo.png_7.png')]
        assert len(found) == expected
    assert cv2.imread(str(found[0])).shape == (48, 240, 3)
    hook.after_val_iter(Runner, 1, None, outputs)
    assert [*(tmp_path / 'out').rglob('val_photo.png_7.png')]
