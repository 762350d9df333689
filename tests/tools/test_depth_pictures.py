"""Depth, tested with its options, compared and looked into by the tools."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')

from ..helpers import NO_WORKERS, call, error, log_of  # noqa: E402
from .conftest import run_test, same  # noqa: E402


def no_workers(cfg):
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)


def test_depth_is_tested_with_all_options(
    write, folder, tmp_path, monkeypatch
):
    path = write('depth')

    def test(*options):
        name = f'visualizer.name=depth-{len(options)}'
        call(
            monkeypatch,
            *('test', path, folder / 'depth_sapa.pth', *options),
            *('--work-dir', tmp_path / 'work', '--cfg-options', name),
            *NO_WORKERS,
        )
        assert 'abs_rel: ' in log_of(tmp_path / 'work')
        return {x.name: cv2.imread(str(x), -1) for x in out.iterdir()}

    pictures, out = tmp_path / 'pictures', tmp_path / 'out'
    single = test('--out', out)
    both = test('--out', out, '--tta', '--show-dir', pictures)
    assert sorted(both) == ['rgb_00001.png', 'rgb_00002.png'] == sorted(single)
    for name, depth in both.items():
        assert depth.dtype == np.uint16 and depth.shape == (64, 64)
        assert (depth != single[name]).any()
    drawn = [cv2.imread(str(x)) for x in pictures.rglob('*.png')]
    assert [picture.shape[1] for picture in drawn] == [1350, 1350]


def test_what_is_drawn_is_what_is_tested(write, compare, folder, tmp_path):
    path = write('depth', no_workers)
    rows, palette, classes, *_ = compare(path, '--errors')
    found = run_test(path, folder / 'depth_sapa.pth', tmp_path)
    assert len(palette) == 0 and classes is None
    assert [row.name for row in rows] == ['rgb_00001', 'rgb_00002']
    for number, (row, sample) in enumerate(zip(rows, found, strict=True), 1):
        (prediction,) = row.predictions.values()
        assert list(row.predictions) == ['SAPA-G']
        assert prediction.dtype == np.float32
        same(prediction, sample.pred_depth_map.data[0].numpy())
        same(row.ground_truth, sample.gt_depth_map.data[0].numpy())
        stored = (
            folder / f'nyu/official_splits/test/room/sync_depth_0000{number}'
        )
        stored = cv2.imread(f'{stored}.png', -1)
        np.testing.assert_allclose(row.ground_truth, stored / 1000, rtol=1e-6)


def test_images_of_ones_own_may_have_depth_maps(
    write, compare, folder, tmp_path
):
    path = write('depth')
    depth = np.random.default_rng(0).integers(0, 9000, (67, 45), np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), depth)
    image = folder / 'images/a.png'
    ((row,), *_) = compare(path, image, '--ground-truth', tmp_path)
    np.testing.assert_allclose(row.ground_truth, depth / 1000, rtol=1e-6)
    assert row.predictions['SAPA-G'].shape == (67, 45)
    ((row,), *_) = compare(path, image)
    assert row.ground_truth is None
    cv2.imwrite(str(tmp_path / 'a.png'), depth.astype(np.uint8))
    with pytest.raises(SystemExit, match='a depth map, a PNG of 16 bits'):
        compare(path, image, '--ground-truth', tmp_path)


def test_data_without_depth_maps_has_no_column_of_them(write, compare, capsys):
    def change(cfg):
        cfg.test_dataloader.dataset.update(
            ann_file='',
            data_prefix=dict(img_path='official_splits/test/room'),
            test_mode=True,
        )

    rows, *_ = compare(write('depth', change))
    assert [row.ground_truth for row in rows] == [None, None]
    why = 'the test data name no depth maps (depth_map_path)'
    assert f'is drawn for 2 of 2: {why}.\n' in capsys.readouterr().out


def test_depth_and_classes_are_not_compared(folder, monkeypatch, tmp_path):
    models = [
        word
        for kind in ('depth', 'seg')
        for word in (
            '--model',
            folder / f'{kind}.py',
            folder / f'{kind}_sapa.pth',
        )
    ]
    sentence = error(
        monkeypatch,
        *('analysis_tools/compare_models', *models),
        *('--out', tmp_path / 'figure.png'),
    )
    assert 'of one kind, got a depth estimator in ' in sentence
    assert ' and a segmentor in ' in sentence


def test_layers_inside_bts_are_drawn(write, visualize, folder):
    (seen,) = visualize(write('depth'), folder / 'images/a.png')
    # Padded to multiples of 32.
    assert seen.shape == (96, 64, 3)
