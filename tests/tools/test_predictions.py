"""The tools draw the predictions that test.py tests, for any config."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from ..helpers import save_weights
from ..pure_python import write_pure_python
from .conftest import LIBRARIES, run_test, same


def resized(dataset):
    """A data set's config with one more step in its pipeline."""
    pipeline = [*dataset['pipeline']]
    # A segmentor's label maps keep their size.
    place = 1 if dataset['type'] == 'BaseSegDataset' else -1
    resize = dict(type='Resize', scale=(96, 96), keep_ratio=False)
    pipeline.insert(place, resize)
    return {**dataset, 'pipeline': pipeline}


def nest(cfg):
    """Put the test data into wrappers: of 2 scenes are 6 items made."""
    plain = cfg.test_dataloader.dataset.to_dict()
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[
            dict(type='RepeatDataset', times=2, dataset=plain),
            dict(type='RepeatDataset', times=1, dataset=resized(plain)),
        ],
    )
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    # What inference_model and inference_detector of the libraries read.
    cfg.pop('test_pipeline')


def test_what_is_drawn_is_what_is_tested(
    kind, write, compare, folder, tmp_path
):
    path = write(kind, nest)
    rows, *_ = compare(path, '--indices', *range(6))
    found = run_test(path, folder / f'{kind}_sapa.pth', tmp_path)
    assert len(rows) == len(found) == 6
    for row, sample in zip(rows, found):
        (prediction,) = row.predictions.values()
        if kind == 'seg':
            same(prediction, sample.pred_sem_seg.data[0].numpy())
        else:
            same(prediction, sample.pred_instances)
        assert row.ground_truth is not None
    # The same scene by another pipeline, or nothing was shown.
    first, last = (
        getattr(p, 'bboxes', p)
        for row in (rows[0], rows[4])
        for p in row.predictions.values()
    )
    assert (rows[0].image == rows[4].image).all()
    assert first.shape != last.shape or (first != last).any()


def test_the_preprocessor_may_stand_outside_of_the_model(
    write, compare, folder, tmp_path
):
    def change(cfg):
        cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
        cfg.test_dataloader.update(num_workers=0, persistent_workers=False)

    path = write('seg', change)
    ((row,), *_) = compare(path, '--indices', 0)
    sample, _ = run_test(path, folder / 'seg_sapa.pth', tmp_path)
    (prediction,) = row.predictions.values()
    same(prediction, sample.pred_sem_seg.data[0].numpy())


def test_images_of_ones_own_take_the_pipeline_of_the_test(
    kind, write, visualize, folder
):
    def change(cfg):
        loader = cfg.test_dataloader
        loader.dataset = resized(loader.dataset.to_dict())

    (seen,) = visualize(write(kind, change), folder / 'images/a.png')
    assert seen.shape == (96, 96, 3)


def test_without_test_data_classes_are_those_of_the_checkpoint(
    kind, write, visualize, compare, folder
):
    def change(cfg):
        cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
        cfg.val_dataloader.dataset.data_root = 'nowhere'
        cfg.val_dataloader.dataset.metainfo = dict(classes=('other',))

    path = write(kind, change)
    _, palette, classes, *_ = compare(path, folder / 'images/a.png')
    assert classes[-1] == 'spiral' and len(palette) == len(classes)
    assert len(visualize(path, folder / 'images/a.png')) == 1
    with pytest.raises(SystemExit, match='expected test data, .*name images'):
        compare(path)


def test_a_checkpoint_without_classes_takes_those_of_the_data(
    kind, write, compare, folder, tmp_path
):
    saved = torch.load(folder / f'{kind}_sapa.pth')
    torch.save(dict(state_dict=saved['state_dict']), tmp_path / 'bare.pth')
    image = folder / 'images/a.png'
    _, _, classes, *_ = compare(
        write(kind), image, checkpoint=tmp_path / 'bare.pth'
    )
    assert classes[-1] == 'spiral'

    def change(cfg):
        for name in ('train', 'val', 'test'):
            cfg[f'{name}_dataloader'] = None
        cfg.pop('test_pipeline')

    with pytest.raises(SystemExit, match='expected a pipeline for images'):
        compare(write(kind, change), image, checkpoint=tmp_path / 'bare.pth')


def strip_annotations(cfg, tmp_path):
    dataset = cfg.test_dataloader.dataset
    if cfg.default_scope == 'mmseg':
        dataset.data_prefix.pop('seg_map_path')
        return
    source = f'{dataset.data_root}/{dataset.ann_file}'
    with open(source) as file:
        content = json.load(file)
    path = tmp_path / 'image_info.json'
    path.write_text(json.dumps({**content, 'annotations': []}))
    dataset.ann_file = str(path)


def test_data_without_annotations_has_no_column_of_them(
    kind, write, compare, tmp_path, capsys
):
    path = write(kind, lambda cfg: strip_annotations(cfg, tmp_path))
    rows, *_ = compare(path)
    assert [row.ground_truth for row in rows] == [None, None]
    why = dict(
        seg='the test data name no label maps (seg_map_path)',
        det='no image of the test data has annotations',
    )[kind]
    said = f'No ground truth is drawn for 2 of 2: {why}.\n'
    assert said in capsys.readouterr().out


def test_a_scene_without_objects_has_an_empty_ground_truth(
    write, compare, tmp_path
):
    def change(cfg):
        dataset = cfg.test_dataloader.dataset
        with open(f'{dataset.data_root}/{dataset.ann_file}') as file:
            content = json.load(file)
        first = content['images'][0]['id']
        content['annotations'] = [
            item
            for item in content['annotations']
            if item['image_id'] != first
        ]
        path = tmp_path / 'some.json'
        path.write_text(json.dumps(content))
        dataset.ann_file = str(path)

    rows, *_ = compare(write('det', change))
    assert [len(row.ground_truth.bboxes) > 0 for row in rows] == [False, True]


def test_label_maps_that_are_not_there_are_named(write, compare, capsys):
    def change(cfg):
        cfg.test_dataloader.dataset.seg_map_suffix = '_none.png'

    rows, *_ = compare(write('seg', change), '--indices', 1)
    assert rows[0].ground_truth is None
    assert '1 of 1: there is no ' in capsys.readouterr().out


# ---- binary segmentation ----------------------------------------------------


@pytest.mark.parametrize('count', [1, 2])
def test_binary_segmentors_are_drawn(count, write, compare, folder, tmp_path):
    """One channel and a threshold predict floats, 0 and 1."""
    names = ('crack',) if count == 1 else ('ground', 'crack')

    palette = [[9, 9, 9], [250, 0, 0]][-count:]
    meta = dict(classes=names, palette=palette)

    def change(cfg):
        cfg.model.decode_head.update(
            num_classes=count, out_channels=1, threshold=0.5
        )
        cfg.model.decode_head.loss_decode.update(use_sigmoid=True)
        cfg.test_dataloader.dataset.update(
            reduce_zero_label=False, metainfo=meta
        )

    path = write('seg', change)
    checkpoint = tmp_path / 'binary.pth'
    save_weights(checkpoint, path, dataset_meta=meta)
    expected = np.zeros((67, 45), np.uint8)
    expected[:20] = 1
    cv2.imwrite(str(tmp_path / 'a.png'), expected)
    words = folder / 'images/a.png', '--ground-truth', tmp_path
    ((row,), colors, classes, *_) = compare(
        path, *words, '--difference', checkpoint=checkpoint
    )
    (labels,) = row.predictions.values()
    assert labels.dtype.kind == 'i' and labels.shape == expected.shape
    assert set(np.unique(labels)) == {0, 1}
    assert classes[1] == 'crack' and len(classes) == len(colors) == 2
    assert [*colors[1]] == palette[-1]
    np.testing.assert_array_equal(row.ground_truth, expected)


# ---- configs in pure Python -------------------------------------------------


def test_configs_in_pure_python_are_read(
    kind, write, compare, visualize, folder, tmp_path
):
    text = write(kind)
    rows, *_ = compare(text)
    pure = tmp_path / 'pure' / f'{kind}.py'
    pure.parent.mkdir()
    write_pure_python(Config.fromfile(text), LIBRARIES[kind], pure)
    assert isinstance(Config.fromfile(pure).model.type, type)
    again, *_ = compare(pure)
    for row, other in zip(rows, again, strict=True):
        assert list(other.predictions) == ['SAPA-G']
        same(*(x.predictions['SAPA-G'] for x in (row, other)))
        same(row.ground_truth, other.ground_truth)
    assert len(visualize(pure, folder / 'images/a.png')) == 1
