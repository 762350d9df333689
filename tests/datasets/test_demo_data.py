import json
import os
import signal
import time

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsapa.datasets import demo_data
from mmsapa.datasets.demo_data import make_dataset
from mmsapa.datasets.scenes import CLASSES, GROUND, PALETTE, make_scene

from ..helpers import ROOT, error, finish, start, tool

CONFIGS = ROOT / 'configs/demo'


def make(out, **kwargs):
    args = dict(num_train=5, num_val=3, size=64, nproc=1) | kwargs
    for layout in demo_data.FORMATS:
        make_dataset(str(out), layout, **args)
    return out


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != demo_data.MANIFEST
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp('demo'))


def test_files_lie_as_those_of_the_real_data_sets(data):
    ade = 'ade/ADEChallengeData2016'
    expected = {
        'coco/annotations/instances_train2017.json',
        'coco/annotations/instances_val2017.json',
        'nyu/nyudepthv2_train_files_with_gt.txt',
        'nyu/nyudepthv2_test_files_with_gt.txt',
    }
    for folder, name, count in (
        ('training', 'ADE_train', 5),
        ('validation', 'ADE_val', 3),
    ):
        for i in range(1, count + 1):
            expected |= {
                f'{ade}/images/{folder}/{name}_{i:08d}.jpg',
                f'{ade}/annotations/{folder}/{name}_{i:08d}.png',
            }
    for folder, count in (('train2017', 5), ('val2017', 3)):
        expected |= {
            f'coco/{folder}/{i:012d}.jpg' for i in range(1, count + 1)
        }
    for folder, count in (
        ('sync/room_0001', 5),
        ('official_splits/test/room', 3),
    ):
        for i in range(1, count + 1):
            expected |= {
                f'nyu/{folder}/rgb_{i:05d}.jpg',
                f'nyu/{folder}/sync_depth_{i:05d}.png',
            }
    for i in range(1, 6):
        expected |= {
            f'comp1k/Training_set/Other/fg/{i:05d}.jpg',
            f'comp1k/Training_set/Other/alpha/{i:05d}.png',
            f'comp1k/train2014/{i:05d}.jpg',
        }
    # One foreground is before several grounds.
    expected.add('comp1k/Test_set/alpha/00001.png')
    for i in range(3):
        expected |= {
            f'comp1k/Test_set/merged/00001_{i}.png',
            f'comp1k/Test_set/trimaps/00001_{i}.png',
        }
    assert set(contents(data)) == expected


def test_same_seed_gives_same_bytes_whatever_the_processes(data, tmp_path):
    again = make(tmp_path, nproc=2)
    assert contents(again) == contents(data)


def test_an_image_does_not_depend_on_their_number(data, tmp_path):
    more = contents(make(tmp_path, num_train=6))
    images = {
        k: v
        for k, v in contents(data).items()
        if not k.endswith(('.json', '.txt'))
    }
    assert images.items() <= more.items()


def test_other_seeds_give_other_images(data, tmp_path):
    other = contents(make(tmp_path, seed=1))
    for name, content in contents(data).items():
        if not name.endswith('.txt'):
            assert other[name] != content


def test_training_and_validation_differ(data):
    files = contents(data)
    assert (
        files['coco/train2017/000000000001.jpg']
        != files['coco/val2017/000000000001.jpg']
    )


def test_labels_are_those_of_the_scene(data):
    seen = set()
    for path in data.glob('ade/*/annotations/*/*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == (64, 64)
        seen |= set(np.unique(labels))
    assert seen == set(range(GROUND + 1 + len(CLASSES)))

    seed = np.random.SeedSequence(0, spawn_key=(0, 2))
    path = data / 'ade/ADEChallengeData2016/annotations/training'
    labels = cv2.imread(str(path / 'ADE_train_00000002.png'), -1)
    np.testing.assert_array_equal(labels, make_scene(seed, 64).semantic())


def test_shapes_keep_a_good_part_visible():
    for seed in range(8):
        scene = make_scene(seed, 96)
        visible = np.bincount(
            scene.instances.ravel(), minlength=len(scene.labels) + 1
        )
        assert len(scene.labels) >= 4
        assert (visible > 0).all()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_reads_masks_that_fit_their_boxes(data, split, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(data / f'coco/annotations/instances_{split}2017.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(
        CLASSES
    )
    assert coco.getAnnIds()
    for image in coco.loadImgs(coco.getImgIds()):
        path = data / f'coco/{split}2017' / image['file_name']
        height, width = cv2.imread(str(path)).shape[:2]
        assert (image['height'], image['width']) == (height, width)
        taken = np.zeros((height, width), int)
        for ann in coco.loadAnns(coco.getAnnIds(image['id'])):
            mask = coco.annToMask(ann)
            ys, xs = np.nonzero(mask)
            x, y, w, h = ann['bbox']
            assert (x, y) == (xs.min(), ys.min())
            assert (x + w, y + h) == (xs.max() + 1, ys.max() + 1)
            assert ann['area'] == mask.sum() and ann['iscrowd'] == 0
            taken += mask
        assert taken.max() == 1, 'visible parts do not overlap'


def test_color_says_nothing_about_the_class():
    means = {label: [] for label in range(len(CLASSES))}
    for seed in range(60):
        scene = make_scene(seed, 64)
        for i, label in enumerate(scene.labels, 1):
            if label in means and (scene.instances == i).any():
                means[label].append(scene.image[scene.instances == i].mean(0))
    overall = np.concatenate([*means.values()])
    for colors in means.values():
        error = overall.std(0) / len(colors) ** 0.5
        assert (np.abs(np.mean(colors, 0) - overall.mean(0)) < 4 * error).all()


def test_a_second_run_makes_nothing_and_a_changed_one_makes_all(
    tmp_path, monkeypatch
):
    args = (str(tmp_path), 'ade', 2, 1, 32)
    assert make_dataset(*args, nproc=1)
    before = contents(tmp_path)
    assert not make_dataset(*args, nproc=1)
    assert make_dataset(*args, seed=1, nproc=1)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path):
    arguments = '--layout', 'ade', '--train', 50000, '--size', 32
    process = start(
        tmp_path,
        *tool('make_demo_data', '--out', '.', *arguments, '--nproc', 2),
    )
    deadline = time.monotonic() + 600
    while not [*tmp_path.rglob('*.png')]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert 'Traceback' not in output and 'Stopped; ' in output
    assert not (tmp_path / 'ade').exists()
    assert make_dataset(str(tmp_path), 'ade', 3, 1, 32, nproc=1)
    assert [path.name for path in tmp_path.iterdir()] == ['ade']


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / 'coco').mkdir()
    with pytest.raises(FileExistsError, match='was not made here'):
        make_dataset(str(tmp_path), 'coco', 1, 1, 32)


@pytest.mark.parametrize('layout', demo_data.FORMATS)
def test_files_of_a_user_are_kept(tmp_path, layout):
    args = (str(tmp_path), layout, 2, 1, 32)
    make_dataset(*args, nproc=1)
    target = tmp_path / layout
    first = next(target.rglob('*.jpg'))
    made = first.read_bytes()
    for path, content in (
        (target / 'notes.txt', b'mine'),
        (first.parent / 'more/own.jpg', b'mine'),
        (first, b'retouched'),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match=f'{path} was not made'):
            make_dataset(*args, seed=1, nproc=1)
        assert path.read_bytes() == content
        path.unlink()
    # What is there is used nevertheless.
    first.write_bytes(made)
    assert not make_dataset(*args, nproc=1)


def test_scenes_of_an_older_version_are_drawn_anew(tmp_path, monkeypatch):
    args = (str(tmp_path), 'ade', 3, 2, 32)
    make_dataset(*args, nproc=1)
    monkeypatch.setattr(demo_data, 'VERSION', demo_data.VERSION + 1)
    assert make_dataset(*args, nproc=1)
    assert not make_dataset(*args, nproc=1)


def test_a_linked_folder_is_left_alone(tmp_path):
    make_dataset(str(tmp_path), 'ade', 2, 1, 32, nproc=1)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'ade').symlink_to(tmp_path / 'ade')
    with pytest.raises(FileExistsError, match='elsewhere/ade was not made'):
        make_dataset(str(elsewhere), 'ade', 3, 1, 32, nproc=1)


def test_the_tool_says_what_stands_in_its_way(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    (tmp_path / 'ade').mkdir()
    for out in tmp_path, tmp_path / 'file':
        sentence = error(
            monkeypatch,
            *('make_demo_data', '--out', out, '--layout', 'ade'),
            *('--train', 1, '--val', 1, '--nproc', 1),
        )
        assert str(out) in sentence


def test_bad_arguments_say_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="'voc'"):
        make_dataset(str(tmp_path), 'voc', 1, 1)
    with pytest.raises(ValueError, match='must be positive, got 0'):
        make_dataset(str(tmp_path), 'ade', 0, 1)


def test_demo_configs_name_the_same_classes():
    seg, det = (
        Config.fromfile(next(CONFIGS.glob(f'{name}*'))).metainfo
        for name in ('segformer', 'faster')
    )
    assert tuple(det.classes) == CLASSES
    assert tuple(map(tuple, det.palette)) == PALETTE
    assert tuple(seg.classes) == ('ground', *CLASSES)
    assert tuple(map(tuple, seg.palette[1:])) == PALETTE


def test_annotations_are_plain_json(data):
    path = data / 'coco/annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    assert set(content) == {
        'info',
        'licenses',
        'images',
        'annotations',
        'categories',
    }
    assert [a['id'] for a in content['annotations']] == list(
        range(1, len(content['annotations']) + 1)
    )
