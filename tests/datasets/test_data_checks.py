"""Data that does not fit its config is found before the first iteration."""

import json
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import nn

from mmsapa.datasets.categories import read_categories
from mmsapa.datasets.checks import MORE_SAMPLES, SAMPLES, check_loop
from mmsapa.engine.config import ConfigError

from ..helpers import (
    COMMON,
    QUICK,
    call,
    dump_config,
    error,
    make_data,
    save_weights,
    write_config,
)

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Data of both kinds, for copies that are then spoiled."""
    folder = tmp_path_factory.mktemp('data')
    return {kind: make_data(folder, kind) for kind in ('seg', 'det')}


@pytest.fixture
def data(made, tmp_path):
    """A copy of the data; the part of the path is that of the kind."""

    def data(kind):
        root = tmp_path / kind
        if not root.exists():
            shutil.copytree(made[kind], root)
        return root

    return data


@pytest.fixture
def write(data, tmp_path):
    """Write a config for the data."""

    def write(kind, more, edit):
        path = tmp_path / f'{kind}.py'
        write_config(path, kind, data(kind), COMMON + QUICK + more)
        if edit:
            cfg = Config.fromfile(path)
            edit(cfg)
            dump_config(cfg, path)
        return path

    return write


@pytest.fixture
def refused(monkeypatch, write, tmp_path):
    """Return the message that a tool ends with, before any iteration."""

    def refused(kind, *options, name='train', more='', edit=None):
        path = write(kind, more, edit)
        work_dir = tmp_path / 'work'
        arguments = [path]
        if name == 'test':
            arguments.append(save_weights(tmp_path / 'a.pth', path))
        sentence = error(
            monkeypatch,
            name,
            *(*arguments, '--work-dir', work_dir),
            *(('--cfg-options', *options) if options else ()),
        )
        assert 'Iter(' not in ''.join(
            log.read_text() for log in work_dir.glob('*/*.log')
        )
        return sentence

    return refused


@pytest.fixture
def goes_well(monkeypatch, write, tmp_path):
    """Train one iteration and validate."""

    def goes_well(kind, *options, more='', edit=None):
        path = write(kind, more, edit)
        one = 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'
        call(
            monkeypatch,
            'train',
            *(path, '--work-dir', tmp_path / 'work'),
            *('--cfg-options', *one, *options),
        )

    return goes_well


def label_maps(root, split='training'):
    return sorted((root / 'annotations' / split).iterdir())


def change(paths, function):
    for path in paths:
        cv2.imwrite(str(path), function(cv2.imread(str(path), -1)))


# ------------------------------------------------------------- segmentation


@pytest.mark.parametrize('split', ['training', 'validation'])
def test_a_label_beyond_the_classes_is_named(data, refused, split):
    path = label_maps(data('seg'), split)[1]
    change([path], lambda labels: np.full_like(labels, 9))
    sentence = refused('seg')
    assert f'{path} has label 8 in 4096 pixels' in sentence
    assert 'labels are 0 to 7 (after reduce_zero_label)' in sentence


def test_label_maps_of_0_and_255_are_named(data, refused):
    maps = label_maps(data('seg'))
    change(maps, lambda labels: np.where(labels > 1, 255, 0).astype('uint8'))
    option = 'train_dataloader.dataset.reduce_zero_label=False'
    sentence = refused('seg', option)
    assert f'{maps[0]} and the other label maps' in sentence
    assert 'nothing but 0 and 255, but labels are 0 to 7; 255 is' in sentence


def test_rare_classes_are_looked_for(data, goes_well, made):
    """Most label maps here hold a class and what is ignored."""
    maps = label_maps(data('seg'))
    change(maps[:-1], lambda labels: np.minimum(labels, 1))
    goes_well('seg')


def test_colored_label_maps_are_named(data, refused):
    path = label_maps(data('seg'), 'validation')[0]
    change([path], lambda labels: np.stack([labels] * 3, 2))
    sentence = refused('seg', name='test')
    assert sentence.startswith(f'{path}: expected a label map of one channel')
    assert 'got an image of 3 channels' in sentence


def test_a_label_map_that_cannot_be_read_is_named(data, refused):
    path = label_maps(data('seg'))[0]
    path.write_text('no image')
    assert f'{path}: expected a label map, got what' in refused('seg')
    path.unlink()
    assert f'{path}: expected a label map, got what' in refused('seg')


def test_a_folder_without_images_is_named(data, refused):
    folder = data('seg') / 'images/training'
    option = 'train_dataloader.dataset.img_suffix=.tiff'
    sentence = refused('seg', option)
    assert f'{folder}' in sentence and 'expected images (.tiff)' in sentence


def test_a_head_for_fewer_classes_is_named(refused):
    sentence = refused('seg', 'model.decode_head.num_classes=5')
    assert 'decode_head has num_classes=5, but the data of' in sentence
    assert 'train_dataloader has 8 classes (ground, disc, ' in sentence


def test_one_channel_tells_two_classes_apart(data, goes_well):
    for split in 'training', 'validation':
        change(label_maps(data('seg'), split), lambda labels: labels % 2)
    goes_well(
        'seg',
        more="""
for_both = dict(reduce_zero_label=False, metainfo=dict(
    classes=('even', 'odd'), palette=[[0, 0, 0], [9, 9, 9]]))
train_dataloader['dataset'].update(for_both)
val_dataloader['dataset'].update(for_both)
model['decode_head'].update(num_classes=2, out_channels=1, threshold=0.3,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
""",
    )


class Many:
    """Mix in for a data set of many images; notes those that are read."""

    def load_data_list(self):
        """Repeat one label map."""
        self.read = []
        path = self.data_prefix['seg_map_path']
        info = dict(img_path='a.jpg', seg_map_path=path, seg_fields=[])
        info.update(reduce_zero_label=False, label_map=None)
        return [info] * 5000

    def get_data_info(self, idx):
        """Note the index."""
        self.read.append(idx)
        return super().get_data_info(idx)


@pytest.mark.parametrize(
    ('labels', 'most'), [([0, 1], SAMPLES + 3), ([0, 255], MORE_SAMPLES + 20)]
)
def test_samples_are_few_and_from_all_over(labels, most, tmp_path):
    from mmseg.datasets import BaseSegDataset
    from mmseg.models import FCNHead

    path = str(tmp_path / 'labels.png')
    cv2.imwrite(path, np.array([labels, labels], np.uint8))
    dataset = type('Data', (Many, BaseSegDataset), {})(
        metainfo=dict(classes=('a', 'b'), palette=[[0] * 3, [9] * 3]),
        data_prefix=dict(img_path='', seg_map_path=path),
        pipeline=[dict(type='mmseg.LoadAnnotations')],
    )
    model = nn.Module()
    model.decode_head = FCNHead(in_channels=4, channels=4, num_classes=2)
    if labels == [0, 1]:
        check_loop('train', model, dataset)
    else:
        with pytest.raises(ConfigError, match='nothing but 0 and 255'):
            check_loop('train', model, dataset)
    assert dataset.read[:3] == [0, 1, 2] and 4999 in dataset.read
    assert SAMPLES <= len(dataset.read) <= most


# ---------------------------------------------------------------- detection


@pytest.mark.parametrize('name', ['train', 'test'])
@pytest.mark.parametrize(
    'classes',
    [
        ('cat', 'dog'),
        ('disc', 'ring', 'cross', 'triangle', 'star', 'bar', 'spiral'),
        ('disc', 'hoop', 'triangle', 'cross', 'star', 'bar', 'spiral'),
    ],
)
def test_classes_that_are_not_those_of_the_file_are_named(
    refused, data, name, classes
):
    split = dict(train='train', test='val')[name]
    number = f'model.roi_head.bbox_head.num_classes={len(classes)}'
    more = f"""
for loader in (train_dataloader, val_dataloader):
    loader['dataset']['metainfo'] = dict(classes={classes})
"""
    sentence = refused('det', number, name=name, more=more)
    path = data('det') / f'annotations/instances_{split}2017.json'
    assert f'{path} has the categories (disc, ring, ' in sentence
    assert f'are ({classes[0]}, {classes[1]}' in sentence


def test_a_part_of_the_classes_may_be_learned(goes_well):
    goes_well(
        'det',
        'model.roi_head.bbox_head.num_classes=2',
        more="""
some = dict(classes=('ring', 'bar'))
train_dataloader['dataset']['metainfo'] = some
val_dataloader['dataset']['metainfo'] = some
""",
    )


def test_an_evaluator_of_other_data_is_named(refused, data):
    folder = data('det') / 'annotations'
    other = folder / 'instances_train2017.json'
    options = f'val_evaluator.ann_file={other}'
    assert 'has none of the ' in refused('det', options)
    content = json.loads((folder / 'instances_val2017.json').read_text())
    for image in content['images']:
        image['id'] += 10
    for ann in content['annotations']:
        ann['image_id'] += 10
    other.write_text(json.dumps(content))
    sentence = refused('det', f'test_evaluator.ann_file={other}', name='test')
    assert f'does not know {data("det")}/val2017/000000000001' in sentence
    assert 'name the ann_file of the test data' in sentence


def test_an_evaluator_that_is_not_there_is_named(refused, tmp_path):
    sentence = refused('det', f'val_evaluator.ann_file={tmp_path}/no.json')
    assert (
        f'val_evaluator needs {tmp_path}/no.json, which does not' in sentence
    )


@pytest.mark.parametrize('number', [3, 9])
def test_a_head_for_other_classes_is_named(refused, number):
    option = f'model.roi_head.bbox_head.num_classes={number}'
    sentence = refused('det', option)
    assert f'roi_head.bbox_head has num_classes={number}, but' in sentence


class Panoptic(BaseDataset):
    """Two classes with boxes, and one without."""

    METAINFO = dict(
        classes=('cat', 'dog', 'sky'), thing_classes=('cat', 'dog')
    )

    def load_data_list(self):
        """Make one image."""
        return [dict(img_path='a.jpg', instances=[dict(bbox_label=1)])]


@pytest.mark.parametrize(('boxes', 'fits'), [(2, True), (3, False)])
def test_panoptic_data_has_boxes_of_things_alone(boxes, fits):
    from mmdet.models.roi_heads import BBoxHead, StandardRoIHead

    head = BBoxHead(num_classes=boxes, in_channels=4, roi_feat_size=1)
    model = nn.Module()
    model.roi_head = StandardRoIHead()
    model.roi_head.bbox_head = head
    if fits:
        return check_loop('val', model, Panoptic(), ['a metric'])
    with pytest.raises(ConfigError, match='has num_classes=3, .* 2 classes'):
        check_loop('val', model, Panoptic(), ['a metric'])


# -------------------------------------------------------------------- paths


def nested(*folders):
    def edit(cfg):
        first, second = (
            dict(cfg.train_dataloader.dataset, data_root=str(folder))
            for folder in folders
        )
        repeated = dict(type='RepeatDataset', times=2, dataset=first)
        cfg.train_dataloader.dataset = dict(
            type='ConcatDataset', datasets=[repeated, second]
        )

    return edit


def test_nested_data_is_looked_into(refused, data, goes_well, tmp_path):
    root = data('seg')
    sentence = refused('seg', edit=nested(root, tmp_path / 'no'))
    assert f'{tmp_path}/no/images/training, which does not' in sentence
    spoiled = tmp_path / 'spoiled'
    shutil.copytree(root, spoiled)
    path = label_maps(spoiled)[0]
    change([path], lambda labels: labels + 50)
    sentence = refused('seg', edit=nested(root, spoiled))
    assert f'{path} has label ' in sentence
    goes_well('seg', edit=nested(root, root))


def test_a_backend_is_asked_for_its_data(refused, data, goes_well, tmp_path):
    """Here one whose paths stand for others, as buckets of petrel do."""
    from mmengine.fileio import LocalBackend, register_backend

    class Bucket(LocalBackend):
        def get(self, path):
            return super().get(path.replace('/bucket', str(data('seg'))))

        def exists(self, path):
            path = path.replace('/bucket', str(data('seg')))
            return super().exists(path)

        def list_dir_or_file(self, dir_path, *args, **kwargs):
            path = str(dir_path).replace('/bucket', str(data('seg')))
            return super().list_dir_or_file(path, *args, **kwargs)

    register_backend('bucket', Bucket, force=True)

    def behind(folder):
        def edit(cfg):
            place = dict(backend_args=dict(backend='bucket'))
            dataset = cfg.train_dataloader.dataset
            dataset.update(place, data_root=folder)
            for transform in dataset.pipeline[:2]:
                transform.update(place)

        return edit

    sentence = refused('seg', edit=behind('/bucket/no'))
    assert 'needs /bucket/no/images/training, which' in sentence
    goes_well('seg', edit=behind('/bucket'))


def test_a_backend_that_cannot_answer_is_believed(refused, data):
    more = """
train_dataloader['dataset'].update(
    data_root='far', backend_args=dict(backend='petrel'))
"""
    # Which is why it is only found by petrel's own client, which is absent.
    with pytest.raises(ImportError):
        refused('seg', more=more)


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('train_dataloader.dataset.data_root', 'train_dataloader: data_root'),
        ('val_dataloader.dataset.data_prefix.img', 'val_dataloader: img'),
        ('val_evaluator.ann_file', 'val_evaluator: ann_file'),
    ],
)
def test_a_number_is_no_place(refused, option, words):
    sentence = refused('det', f'{option}=2024')
    assert f'{words} must be text, got the number 2024' in sentence
    assert refused('det', 'load_from=7') == 'There is no checkpoint 7.'


# ---------------------------------------------- what stock trains, is trained


def test_a_class_by_itself_is_validated(data, goes_well):
    change(
        label_maps(data('seg'), 'validation'),
        lambda labels: np.minimum(labels, 1),
    )
    goes_well('seg')


def test_a_head_of_proposals_knows_no_classes(goes_well):
    def edit(cfg):
        parts = 'data_preprocessor', 'backbone', 'neck', 'rpn_head'
        cfg.model = dict(
            type='RPN',
            train_cfg=dict(rpn=cfg.model.train_cfg.rpn),
            test_cfg=dict(rpn=cfg.model.test_cfg.rpn),
            **{part: cfg.model[part] for part in parts},
        )
        cfg.val_evaluator.metric = 'proposal_fast'

    goes_well('det', edit=edit)


def test_categories_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / 'a.json'
    categories = [
        dict(id=7, name='a', keypoints=['x', 'y']),
        dict(id=3, name='b'),
    ]
    own = [dict(id=1, categories=[1, 2])] * 1000
    for content in (
        dict(categories=categories, annotations=own),
        dict(annotations=own, categories=categories),
        dict(categories=categories, annotations=[]),
    ):
        path.write_text(json.dumps(content))
        assert read_categories(path) == {7: 'a', 3: 'b'}
    for text in '', '{}', '{"categories": 3}', '{"categories": [', 'no json':
        path.write_text(text)
        assert read_categories(path) == {}
    assert read_categories(path, dict(backend='petrel')) == {}
