"""Loading of mattes, and packing of what a mattor gets."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmsapa.datasets.matting_loading import (
    LoadAlpha,
    LoadBackground,
    LoadForeground,
    LoadTrimap,
    PackMattingInputs,
)
from mmsapa.engine.config import ConfigError

STEPS = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def write(path, pixels):
    cv2.imwrite(str(path), pixels)
    return str(path)


def refused(step, results):
    with pytest.raises(ConfigError) as caught:
        step(results)
    return str(caught.value)


def test_gray_is_read_from_every_kind_of_png(tmp_path):
    gray = Image.fromarray(STEPS)
    for mode in ('L', 'P', 'RGB', 'RGBA', 'LA'):
        path = tmp_path / f'{mode}.png'
        gray.convert(mode).save(path)
        alpha = LoadAlpha()(dict(alpha_path=str(path)))['alpha']
        assert alpha.dtype == np.float32
        np.testing.assert_allclose(alpha, STEPS / 255, rtol=1e-6)
        trimap = LoadTrimap()(dict(trimap_path=str(path)))['trimap']
        np.testing.assert_array_equal(trimap, STEPS)
    deep = STEPS.astype(np.uint16) * 273
    path = write(tmp_path / '16.png', deep)
    alpha = LoadAlpha()(dict(alpha_path=path))['alpha']
    np.testing.assert_allclose(alpha, deep / 65535, rtol=1e-6)
    assert refused(LoadTrimap(), dict(trimap_path=path)) == (
        f'{path}: expected a trimap of 8 bits, got 16; write 0, 128 and 255.'
    )


def test_jpegs_in_three_channels_are_gray_enough(tmp_path):
    path = write(tmp_path / 'a.jpg', np.repeat(STEPS[..., None], 3, 2))
    alpha = LoadAlpha()(dict(alpha_path=path))['alpha']
    assert abs(alpha - STEPS / 255).max() < 0.1


def test_colors_and_cut_outs_are_no_alpha(tmp_path):
    color = np.dstack([STEPS, STEPS, STEPS // 2])
    path = write(tmp_path / 'a.png', color)
    assert refused(LoadAlpha(), dict(alpha_path=path)) == (
        f'{path}: expected a gray image, got colors; write the map into one '
        'channel.'
    )
    cut_out = np.dstack([STEPS, STEPS, STEPS, STEPS])
    path = write(tmp_path / 'b.png', cut_out)
    sentence = refused(LoadAlpha(), dict(alpha_path=path))
    assert 'a gray image, got transparent pixels' in sentence
    path = write(tmp_path / 'c.tiff', STEPS.astype(np.float32))
    sentence = refused(LoadAlpha(), dict(alpha_path=path))
    assert 'expected 8 or 16 bits a channel, got float32' in sentence


@pytest.mark.parametrize(
    ('step', 'key'),
    [
        (LoadForeground(), 'fg_path'),
        (LoadBackground(), 'bg_path'),
        (LoadAlpha(), 'alpha_path'),
        (LoadTrimap(), 'trimap_path'),
    ],
)
def test_files_that_are_no_images_are_named(tmp_path, step, key):
    path = tmp_path / 'a.png'
    sentence = refused(step, {key: str(path)})
    assert sentence.startswith(f'{path}: expected an image, got what cannot')
    for content in (b'', b'no image'):
        path.write_bytes(content)
        sentence = refused(step, {key: str(path)})
        assert sentence.startswith(f'{path}: expected an image, got what Open')


def test_maps_of_another_size_are_named(tmp_path):
    path = write(tmp_path / 'a.png', STEPS)
    image = np.zeros((12, 24, 3), np.uint8)
    size = '24 x 12, got 20 x 12; pair it with its image.'
    for step, key in ((LoadAlpha(), 'alpha'), (LoadTrimap(), 'trimap')):
        results = {f'{key}_path': path, 'img': image, 'img_path': 'b.png'}
        assert refused(step, results) == (
            f'{path}: expected the size of b.png, {size}'
        )
    results = dict(alpha_path=path, fg=image, fg_path='c.png')
    assert f'the size of c.png, {size}' in refused(LoadAlpha(), results)


def test_colors_are_not_turned(tmp_path):
    """As little as the alpha map beside them."""
    path, exif = tmp_path / 'a.jpg', Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(STEPS).convert('RGB').save(path, exif=exif)
    assert cv2.imread(str(path)).shape == (20, 12, 3)
    results = LoadForeground()(dict(fg_path=str(path)))
    assert results['fg'].shape == (12, 20, 3)
    assert results['ori_shape'] == (12, 20)


def test_what_is_there_is_packed():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = PackMattingInputs()(dict(img=image, img_path='a.png', more=1))
    assert found['inputs'].dtype == torch.uint8
    assert found['inputs'][2, 1, 3] == image[1, 3, 2]
    sample = found['data_samples']
    assert sample.metainfo == dict(img_path='a.png', img_shape=(2, 4))
    assert not sample.keys()
    trimap = np.full((2, 4), 127, np.uint8)
    results = dict(img=image, trimap=trimap, bg=image, meta=3)
    sample = PackMattingInputs(meta_keys=('meta',))(results)['data_samples']
    assert sample.metainfo == dict(meta=3, img_shape=(2, 4))
    assert (sample.trimap.data == 127).all()
    assert sample.gt_bg.data.dtype == torch.float32
    assert set(sample.keys()) == {'trimap', 'gt_bg'}
