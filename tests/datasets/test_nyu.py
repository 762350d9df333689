"""Pairs of image and depth, from lists and folders, and what is wrong."""

import cv2
import numpy as np
import pytest
from torch import nn

pytest.importorskip('mmseg')

from mmseg.registry import DATASETS  # noqa: E402

from mmsapa.datasets.checks import (  # noqa: E402
    check_loop,
    explain_failure,
    missing_paths,
)
from mmsapa.engine.config import ConfigError  # noqa: E402

LIST = 'list.txt'
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadDepthAnnotation'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'focal')),
]


def write_pair(root, image, depth, size=(6, 8), meters=2.5):
    for path in root / image, root / depth:
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / image), np.zeros((*size, 3), np.uint8))
    steps = np.full(size, 1000 * meters, np.uint16)
    cv2.imwrite(str(root / depth), steps)


@pytest.fixture
def root(tmp_path):
    """Two pairs as BTS's training list has them."""
    for number in (45, 46):
        write_pair(
            tmp_path / 'sync/kitchen_0028b',
            f'rgb_{number:05}.jpg',
            f'sync_depth_{number:05}.png',
        )
    write_list(
        tmp_path,
        '/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png '
        '518.8579',
        '/kitchen_0028b/rgb_00046.jpg /kitchen_0028b/sync_depth_00046.png '
        '518.8579',
    )
    return tmp_path


def write_list(root, *lines, end='\n'):
    text = ''.join(line + end for line in lines)
    (root / LIST).write_bytes(text.encode())


def config(root, folder='sync', **more):
    return dict(
        type='mmsapa.NYUDepthDataset',
        data_root=str(root),
        **dict(
            ann_file=LIST,
            data_prefix=dict(img_path=folder),
            pipeline=PIPELINE,
        )
        | more,
    )


@pytest.fixture
def build(scope):
    scope('mmseg')
    return lambda *args, **more: DATASETS.build(config(*args, **more))


@pytest.fixture
def refused(build):
    """Return the sentence by which a data set is refused."""

    def refused(*args, **more):
        with pytest.raises(ConfigError) as caught:
            build(*args, **more)
        # Without what mmengine may put before it.
        with pytest.raises(ConfigError) as again:
            explain_failure(config(*args, **more))
        sentence = str(again.value)
        assert str(caught.value).endswith(sentence)
        return sentence

    return refused


# ------------------------------------------------------------------ layouts


def test_a_list_of_bts_is_read(root, build):
    dataset = build(root)
    assert len(dataset) == 2
    info = dataset.get_data_info(1)
    folder = f'{root}/sync/kitchen_0028b'
    assert info['img_path'] == f'{folder}/rgb_00046.jpg'
    assert info['depth_map_path'] == f'{folder}/sync_depth_00046.png'
    assert info['focal'] == 518.8579
    assert dataset.metainfo['classes'][info['category_id']] == 'kitchen'
    sample = dataset[1]['data_samples']
    assert sample.gt_depth_map.data.shape == (1, 6, 8)
    assert (sample.gt_depth_map.data == 2.5).all()
    assert sample.focal == 518.8579


def test_paths_without_slash_and_folders_of_their_own(root, build):
    """As in BTS's test list, and in those of KITTI."""
    write_pair(root, 'raw/bathroom/rgb_00001.jpg', 'truth/a/0.png')
    write_list(root, 'bathroom/rgb_00001.jpg a/0.png 721.5', end='\r\n')
    prefix = dict(img_path='raw', depth_map_path='truth')
    info = build(root, data_prefix=prefix).get_data_info(0)
    assert info['img_path'] == f'{root}/raw/bathroom/rgb_00001.jpg'
    assert info['depth_map_path'] == f'{root}/truth/a/0.png'
    assert info['focal'] == 721.5


def test_lines_without_depth_are_skipped(root, build):
    line = (root / LIST).read_text().splitlines()[1]
    write_list(root, 'drive/image.jpg None 721.5377', '', line)
    dataset = build(root)
    assert len(dataset) == 1
    assert dataset.get_data_info(0)['img_path'].endswith('rgb_00046.jpg')


def test_folders_of_mmsegmentation_are_read(tmp_path, build):
    for name in 'home_office_0001_00045', 'bathroom_00001', 'shed':
        write_pair(
            tmp_path,
            f'images/train/{name}.jpg',
            f'annotations/train/{name}.png',
        )
    prefix = dict(img_path='images/train', depth_map_path='annotations/train')
    dataset = build(tmp_path, ann_file='', data_prefix=prefix)
    classes = dataset.metainfo['classes']
    infos = [dataset.get_data_info(i) for i in range(3)]
    rooms = [info['category_id'] for info in infos]
    # The last is of no known kind, and has no digit in its name.
    assert rooms == [
        classes.index('bathroom'),
        classes.index('home_office'),
        -1,
    ]
    for info, item in zip(infos, dataset):
        assert info['depth_map_path'] == (
            info['img_path'].replace('images', 'annotations')[:-3] + 'png'
        )
        assert (item['data_samples'].gt_depth_map.data == 2.5).all()


def test_data_of_several_folders_are_joined(root, build):
    write_pair(root, 'more/bathroom/1.jpg', 'more/bathroom/1.png')
    (root / 'more.txt').write_text('bathroom/1.jpg bathroom/1.png 500')
    both = config(root), config(root, 'more', ann_file='more.txt')
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[*both]))
    assert len(joined) == 3


def test_without_annotations_no_folder_of_depth_is_needed(tmp_path):
    (tmp_path / 'a').mkdir()
    prefix = dict(img_path='a', depth_map_path='b')
    cfg = dict(data_root=str(tmp_path), data_prefix=prefix)
    assert not [*missing_paths(dict(cfg, pipeline=PIPELINE[::2]))]
    assert [*missing_paths(dict(cfg, pipeline=PIPELINE))] == [f'{tmp_path}/b']


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    'line', ['a.jpg b.png', 'a.jpg b.png 518.8 more', 'a.jpg b.png wide']
)
def test_a_line_that_is_none_is_named(root, refused, line):
    good = (root / LIST).read_text().splitlines()[0]
    write_list(root, good, line)
    assert refused(root) == (
        f'{root}/{LIST}, line 2: expected image, depth map and focal length, '
        f"separated by blanks, got '{line}'; correct the line."
    )


def test_a_file_that_is_no_list_is_named(root, refused):
    (root / LIST).write_bytes(bytes(range(128, 256)))
    assert 'line 1: expected image, depth map and' in refused(root)


def test_a_missing_file_is_named_with_its_line(root, refused):
    lines = (root / LIST).read_text().splitlines()
    write_list(root, lines[0], '', lines[1], lines[1].replace('46', '47'))
    assert refused(root) == (
        f'{root}/{LIST}, line 4: expected '
        f'{root}/sync/kitchen_0028b/rgb_00047.jpg, which does not exist, as 2 '
        'of 6 files do not; put them there, or take their pairs out.'
    )
    (root / 'sync/kitchen_0028b/sync_depth_00045.png').unlink()
    assert 'line 1: expected ' in refused(root)
    assert 'as 3 of 6 files do not' in refused(root)


def test_a_list_of_another_folder_says_which_is_which(root, refused):
    """Test images are looked for among those of the training."""
    write_list(root, 'bathroom/rgb_00045.jpg bathroom/a.png 518.8579')
    sentence = refused(root)
    assert f'{LIST}, line 1: expected {root}/sync/bathroom/rgb' in sentence
    assert 'none of the 1 pairs is complete; of NYU Depth v2' in sentence
    assert '(24,231 pairs) goes with the folder sync, the test' in sentence


@pytest.mark.parametrize('lines', [(), ('a.jpg None 721.5377',)])
def test_a_list_without_depth_is_named(root, refused, lines):
    write_list(root, *lines)
    sentence = refused(root)
    assert f'{root}/{LIST}: expected lines with image, depth map' in sentence
    assert 'got none with a depth map; of NYU Depth v2' in sentence


def test_folders_without_pairs_are_named(tmp_path, refused):
    prefix = dict(img_path='images', depth_map_path='annotations')
    arguments = dict(ann_file='', data_prefix=prefix)
    (tmp_path / 'images').mkdir()
    sentence = refused(tmp_path, **arguments)
    assert sentence.startswith(f'{tmp_path}/images: expected images (*.jpg)')
    for name in 'a', 'b':
        write_pair(tmp_path, f'images/{name}.jpg', f'annotations/{name}.png')
    (tmp_path / 'annotations/b.png').unlink()
    assert refused(tmp_path, **arguments).startswith(
        f'{tmp_path}/images/b.jpg: expected {tmp_path}/annotations/b.png, '
        'which does not exist, as 1 of 4 files do not; '
    )


def test_files_behind_a_backend_are_believed(root, build):
    from mmengine.fileio import LocalBackend, register_backend

    class Elsewhere(LocalBackend):
        def get(self, path):
            return super().get(path.replace('far:', str(root)))

    register_backend('elsewhere', Elsewhere, force=True)
    backend = dict(backend_args=dict(backend='elsewhere'))
    assert len(build('far:', **backend)) == 2


# ------------------------------------------------ before the first iteration


class Head(nn.Module):
    max_depth = 10


def check(dataset):
    model = nn.Module()
    model.decode_head = Head()
    check_loop('train', model, dataset)


def test_depth_of_the_wrong_kind_is_named(root, build):
    """Wherever among the samples it is."""
    dataset = build(root)
    check(dataset)
    path = root / 'sync/kitchen_0028b/sync_depth_00046.png'
    for pixels, got in (
        (np.ones((6, 8), np.uint8), '8 bits and 1 channels'),
        (np.ones((6, 8, 3), np.uint16), '16 bits and 3 channels'),
    ):
        cv2.imwrite(str(path), pixels)
        with pytest.raises(ConfigError) as caught:
            check(dataset)
        assert str(caught.value).startswith(
            f'{path}: expected a depth map, a PNG of 16 bits and one channel, '
            f'got {got}; write '
        )


@pytest.mark.parametrize(('factor', 'most'), [(1.0, '2500'), (0.0, '0')])
def test_depth_out_of_range_is_named(root, build, factor, most):
    load = dict(type='mmsapa.LoadDepthAnnotation', depth_rescale_factor=factor)
    dataset = build(root, pipeline=[PIPELINE[0], load, PIPELINE[2]])
    with pytest.raises(ConfigError) as caught:
        check(dataset)
    sentence = str(caught.value)
    assert f'in train_dataloader hold values from {most} to {most}' in sentence
    assert 'are meters above 0 and up to 10, the head' in sentence
