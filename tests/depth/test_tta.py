import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.dataset import Compose, pseudo_collate  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

from mmsapa.engine.config import read_config  # noqa: E402

from ..helpers import write_config  # noqa: E402


def test_is_the_mean_of_an_image_and_its_mirror_image(scope, tmp_path):
    """Of a size that is padded, and with a truth that is not flipped."""
    scope('mmseg')
    cfg = read_config(write_config(tmp_path / 'a.py', 'depth', tmp_path))
    model = MODELS.build(cfg.model).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (45, 67, 3), np.uint8)
    depth = rng.integers(0, 9000, (45, 67), np.uint16)
    for name, view in dict(image=image, mirror=image[:, ::-1]).items():
        cv2.imwrite(str(tmp_path / f'{name}.png'), view)
    cv2.imwrite(str(tmp_path / 'depth.png'), depth)

    @torch.no_grad()
    def predict(model, pipeline, name):
        info = dict(
            img_path=str(tmp_path / f'{name}.png'),
            depth_map_path=str(tmp_path / 'depth.png'),
            seg_fields=[],
        )
        data = Compose(pipeline)(info)
        (sample,) = model.test_step(pseudo_collate([data]))
        return sample

    first, mirror = (
        predict(model, cfg.test_pipeline, name).pred_depth_map.data
        for name in ('image', 'mirror')
    )
    mirror = mirror.flip(2)
    assert (first - mirror).abs().max() > 1e-3
    tta = MODELS.build(dict(cfg.tta_model, module=model))
    sample = predict(tta, cfg.tta_pipeline, 'image')
    assert sample.pred_depth_map.data.shape == (1, 45, 67)
    torch.testing.assert_close(
        sample.pred_depth_map.data, (first + mirror) / 2
    )
    truth = sample.gt_depth_map.data[0].numpy()
    np.testing.assert_allclose(truth, depth / 1000, rtol=1e-6)
    assert sample.img_path == str(tmp_path / 'image.png')
