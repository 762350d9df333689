"""Mattors, compared and looked into by the tools."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')

from ..helpers import error  # noqa: E402
from .conftest import run_test, same  # noqa: E402


@pytest.fixture
def trimaps(tmp_path):
    """A folder with a trimap of the image a.png, of another suffix."""
    trimap = np.full((67, 45), 127, np.uint8)
    trimap[:, :10], trimap[:, -10:] = 0, 255
    (tmp_path / 'trimaps').mkdir()
    cv2.imwrite(str(tmp_path / 'trimaps/a.bmp'), trimap)
    return tmp_path / 'trimaps'


def no_workers(cfg):
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)


def test_what_is_drawn_is_what_is_tested(write, compare, folder, tmp_path):
    path = write('matting', no_workers)
    rows, palette, classes, *_ = compare(path, '--difference')
    found = run_test(path, folder / 'matting_sapa.pth', tmp_path)
    assert len(palette) == 0 and classes is None
    assert [row.name for row in rows] == ['00001_0', '00001_1']
    for row, sample in zip(rows, found, strict=True):
        assert list(row.predictions) == ['SAPA-G']
        same(row.predictions['SAPA-G'], sample.pred_alpha.data[0].numpy())
        same(row.ground_truth, sample.gt_alpha.data[0].numpy())
        same(row.trimap, sample.trimap.data[0].numpy())
    assert (rows[0].trimap != rows[1].trimap).any()


def test_images_of_ones_own_need_trimaps_and_may_have_mattes(
    write, compare, folder, trimaps
):
    path, image = write('matting'), folder / 'images/a.png'
    alpha = np.random.default_rng(0).integers(0, 256, (67, 45), np.uint8)
    cv2.imwrite(str(trimaps.parent / 'a.png'), alpha)
    words = image, '--trimaps', trimaps
    ((row,), *_) = compare(path, *words, '--ground-truth', trimaps.parent)
    np.testing.assert_array_equal(row.ground_truth, alpha / np.float32(255))
    assert np.unique(row.trimap).tolist() == [0, 127, 255]
    matte = row.predictions['SAPA-G']
    assert (matte[:, :10] == 0).all() and (matte[:, -10:] == 1).all()
    ((row,), *_, background) = compare(path, *words, '--background', 'lime')
    assert row.ground_truth is None
    assert background.tolist() == [0, 255, 0]
    *_, background = compare(path, *words, '--background', image)
    np.testing.assert_array_equal(background, row.image)


def test_trimaps_that_are_missing_or_do_not_fit_are_named(
    write, compare, folder, trimaps
):
    path = write('matting')
    images = folder / 'images'

    def error_of(*words):
        with pytest.raises(SystemExit) as caught:
            compare(path, *words)
        return str(caught.value)

    sentence = error_of(images)
    assert 'Expected a trimap for each image' in sentence
    assert 'name their folder by --trimaps.' in sentence
    sentence = error_of(images, '--trimaps', trimaps)
    b = images / 'more/b.png'
    assert sentence == f'There is no trimap {trimaps}/more/b.png for {b}.'
    cv2.imwrite(str(trimaps / 'b.png'), np.zeros((40, 40), np.uint8))
    sentence = error_of(b, '--trimaps', trimaps)
    assert f'expected the size of {b}, 127 x 40, got 40 x 40' in sentence


def test_options_of_mattors_are_refused_to_others(
    folder, monkeypatch, scope, tmp_path, capsys
):
    def error_of(*words):
        return error(
            monkeypatch,
            *('analysis_tools/compare_models', *words, '--model'),
            *(folder / 'seg.py', folder / 'seg_sapa.pth'),
            *('--out', tmp_path / 'figure.png'),
        )

    scope('mmseg')
    image = folder / 'images/a.png'
    for words in ('--background', 'green'), (image, '--trimaps', folder):
        sentence = error_of(*words)
        assert f'{words[-2]}: expected' in sentence
        assert 'got a segmentor; leave it out.' in sentence
    error_of('--background', 'nocolor')
    printed = capsys.readouterr().err
    assert 'a color such as green, or an image, got nocolor' in printed


def test_layers_inside_a_mattor_are_drawn(write, visualize, folder, trimaps):
    image = folder / 'images/a.png'
    (seen,) = visualize(write('matting'), image, '--trimaps', trimaps)
    # Padded to multiples of 16, and without the trimap that goes with it.
    assert seen.shape == (80, 48, 3)
    expected = cv2.imread(str(image))[..., ::-1]
    np.testing.assert_array_equal(seen[:67, :45], expected)
