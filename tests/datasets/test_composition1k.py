"""Foregrounds, backgrounds and composites, in three layouts."""

import json

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmsapa.datasets.checks import (
    check_loop,
    explain_failure,
    missing_paths,
)
from mmsapa.datasets.composition1k import TEST, TRAINING
from mmsapa.engine.config import ConfigError

ADOBE = 'Training_set/Adobe-licensed images'
LOAD = [
    dict(type=name)
    for name in ('LoadForeground', 'LoadAlpha', 'LoadBackground')
]
TRAIN = [
    *LOAD,
    dict(type='CompositeForeground'),
    dict(type='RandomMattingAffine'),
    dict(type='GenerateTrimap', kernel_size=(1, 3)),
    dict(type='CropAroundUnknown', crop_size=8),
    dict(type='JitterForeground'),
    dict(type='CompositeImage'),
    dict(type='PackMattingInputs'),
]
LOAD_TEST = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadTrimap'),
    dict(type='LoadAlpha'),
    dict(type='PackMattingInputs'),
]


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def colors(value, size=(12, 16)):
    return np.full((*size, 3), value, np.uint8)


def disk(size=(12, 16), value=255):
    alpha = np.zeros(size, np.uint8)
    return cv2.circle(alpha, (size[1] // 2, size[0] // 2), 4, value, -1)


@pytest.fixture
def root(tmp_path):
    """Three foregrounds in Adobe's two folders, seven backgrounds."""
    for number, stem in enumerate(['Other/b', 'Adobe-licensed images/a']):
        folder, name = stem.split('/')
        folder = tmp_path / 'Training_set' / folder
        write(folder / f'fg/{name}.jpg', colors(50 + 50 * number))
        write(folder / f'alpha/{name}.png', disk())
    write(tmp_path / f'{ADOBE}/fg/c_1.png', colors(200))
    write(tmp_path / f'{ADOBE}/alpha/c_1.jpg', disk())
    for number in range(7):
        write(tmp_path / f'train2014/{number}.jpg', colors(number, (9, 30)))
    for name in 'x_0', 'x_1', 'y_10':
        write(tmp_path / f'Test_set/merged/{name}.png', colors(10))
        trimap = np.maximum(disk(), 127)
        write(tmp_path / f'Test_set/trimaps/{name}.png', trimap)
    for name in 'x', 'y':
        write(tmp_path / f'Test_set/alpha/{name}.png', disk())
    return tmp_path


def config(root, **more):
    return dict(type='Composition1kDataset', data_root=str(root), **more)


@pytest.fixture
def build(root, scope):
    scope('mmsapa')
    return lambda **more: DATASETS.build(config(root, **more))


@pytest.fixture
def refused(root, build):
    """Return the sentence by which a data set is refused."""

    def refused(**more):
        with pytest.raises(ConfigError) as caught:
            build(**more)
        # Without what mmengine may put before it.
        with pytest.raises(ConfigError) as again:
            explain_failure(config(root, **more))
        sentence = str(again.value)
        assert str(caught.value).endswith(sentence)
        return sentence.replace(f'{root}/', '')

    return refused


def names(root, info):
    return {
        key: value.replace(f'{root}/', '')
        for key, value in info.items()
        if key.endswith('_path')
    }


# ------------------------------------------------------------------ layouts


def test_folders_of_adobe_are_paired_whatever_the_suffix(root, build):
    dataset = build()
    # As many samples as backgrounds.
    assert len(dataset) == 7
    for number in range(7):
        info = names(root, dataset.get_data_info(number))
        fg, alpha = [
            (f'{ADOBE}/fg/a.jpg', f'{ADOBE}/alpha/a.png'),
            (f'{ADOBE}/fg/c_1.png', f'{ADOBE}/alpha/c_1.jpg'),
            ('Training_set/Other/fg/b.jpg', 'Training_set/Other/alpha/b.png'),
        ][number % 3]
        assert info == dict(
            fg_path=fg, alpha_path=alpha, bg_path=f'train2014/{number}.jpg'
        )


def test_no_foreground_is_left_out_for_lack_of_backgrounds(root, build):
    for number in range(1, 7):
        (root / f'train2014/{number}.jpg').unlink()
    dataset = build()
    fgs = {dataset.get_data_info(i)['fg_path'] for i in range(len(dataset))}
    assert len(dataset) == len(fgs) == 3


def test_composites_share_the_alpha_of_their_foreground(root, build):
    dataset = build(test_mode=True, pipeline=LOAD_TEST)
    infos = [names(root, dataset.get_data_info(i)) for i in range(3)]
    assert infos == [
        dict(
            img_path=f'Test_set/merged/{name}.png',
            alpha_path=f'Test_set/alpha/{name[0]}.png',
            trimap_path=f'Test_set/trimaps/{name}.png',
        )
        for name in ('x_0', 'x_1', 'y_10')
    ]
    sample = dataset[2]['data_samples']
    assert sample.img_path == f'{root}/Test_set/merged/y_10.png'
    assert sample.alpha_path == f'{root}/Test_set/alpha/y.png'
    assert sample.ori_shape == sample.img_shape == (12, 16)
    assert set(sample.trimap.data.unique().tolist()) == {127, 255}
    assert sample.gt_alpha.data.unique().tolist() == [0, 1]
    assert sample.gt_alpha.data.shape == (1, 12, 16)
    assert dataset[2]['inputs'].shape == (3, 12, 16)


def test_lists_of_a2u_are_read(root, build):
    """The suffix that a list has need not be that of the file."""
    (root / 'fg.txt').write_text(f'{ADOBE}/fg/a.jpg\n{ADOBE}/fg/c_1.jpg\n')
    (root / 'alpha.txt').write_text(
        f'{ADOBE}/alpha/c_1.jpg\r\n\r\n{ADOBE}/alpha/a.jpg'
    )
    (root / 'bg.txt').write_text('train2014/3.jpg\ntrain2014/1.jpg\n')
    prefix = dict(fg_path='fg.txt', alpha_path='alpha.txt', bg_path='bg.txt')
    dataset = build(data_prefix=prefix)
    assert [names(root, dataset.get_data_info(i)) for i in range(2)] == [
        dict(
            fg_path=f'{ADOBE}/fg/a.jpg',
            alpha_path=f'{ADOBE}/alpha/a.png',
            bg_path='train2014/3.jpg',
        ),
        dict(
            fg_path=f'{ADOBE}/fg/c_1.png',
            alpha_path=f'{ADOBE}/alpha/c_1.jpg',
            bg_path='train2014/1.jpg',
        ),
    ]
    row = 'merged/x_1.png', 'alpha/x.png', 'trimaps/x_0.png'
    (root / 'test.txt').write_text('\t'.join(f'Test_set/{x}' for x in row))
    dataset = build(ann_file='test.txt', test_mode=True)
    assert len(dataset) == 1
    info = names(root, dataset.get_data_info(0))
    assert info == dict(zip(TEST, (f'Test_set/{x}' for x in row)))


@pytest.mark.parametrize('wrapped', [False, True])
def test_json_files_of_mmagic_are_read(root, build, wrapped):
    train = dict(
        fg_path=f'{ADOBE}/fg/a.jpg',
        alpha_path=f'{ADOBE}/alpha/a.png',
        bg_path='train2014/3.jpg',
        merged_path='Training_set/merged/a_3.png',  # which need not exist
    )
    test = dict(
        train,
        merged_path='Test_set/merged/x_0.png',
        trimap_path='Test_set/trimaps/x_0.png',
    )
    for name, item in dict(train=train, test=test).items():
        items = dict(metainfo={}, data_list=[item]) if wrapped else [item]
        (root / f'{name}.json').write_text(json.dumps(items))
    info = names(root, build(ann_file='train.json').get_data_info(0))
    assert info == {key: train[key] for key in TRAINING}
    dataset = build(ann_file='test.json', test_mode=True)
    info = names(root, dataset.get_data_info(0))
    assert info == dict(
        img_path=test['merged_path'],
        alpha_path=test['alpha_path'],
        trimap_path=test['trimap_path'],
    )


# --------------------------------------------------------------- randomness


def test_backgrounds_and_second_foregrounds_are_random(root, build):
    dataset = build(pipeline=[])
    np.random.seed(0)
    drawn = [dataset[0] for _ in range(60)]
    assert {x['fg_path'] for x in drawn} == {f'{root}/{ADOBE}/fg/a.jpg'}
    assert len({x['bg_path'] for x in drawn}) == 7
    assert len({x['other']['fg_path'] for x in drawn}) == 3
    for x in drawn:
        fg, alpha = (x['other'][k] for k in ('fg_path', 'alpha_path'))
        assert fg.replace('/fg/', '/alpha/')[:-3] == alpha[:-3]


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_and_epochs_draw_differently_and_again_so(
    build, persistent, scope
):
    """All by the seed, though mmengine seeds each epoch's workers alike."""
    import torch

    def epochs():
        torch.manual_seed(5)
        loader = Runner.build_dataloader(
            dict(
                dataset=build(pipeline=TRAIN),
                batch_size=1,
                num_workers=2,
                persistent_workers=persistent,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='pseudo_collate'),
            ),
            seed=3,
        )
        return [
            [batch['inputs'][0].numpy().tobytes() for batch in loader]
            for _ in range(2)
        ]

    first, second = epochs()
    assert len({*first, *second}) == 14
    assert [first, second] == epochs()


def test_a_sample_is_what_a_mattor_takes(build):
    np.random.seed(0)
    sample = build(pipeline=TRAIN)[0]
    assert sample['inputs'].shape == (3, 8, 8)
    found = sample['data_samples']
    for key, channels in dict(trimap=1, gt_alpha=1, gt_fg=3, gt_bg=3).items():
        assert getattr(found, key).data.shape == (channels, 8, 8)
    alpha = found.gt_alpha.data
    fg, bg = found.gt_fg.data, found.gt_bg.data
    composite = alpha * fg + (1 - alpha) * bg
    assert (sample['inputs'] - composite).abs().max() < 1e-3
    assert found.fg_path and found.bg_path and found.alpha_path


# ---------------------------------------------------------------- bad input


def test_missing_files_are_named(root, refused):
    (root / f'{ADOBE}/alpha/c_1.jpg').unlink()
    assert refused() == (
        f'{ADOBE}/fg/c_1.png: expected a file of the same name in '
        'Training_set/*/alpha, got none, as 1 of 3 maps are missing; put '
        'them there, or take their images out.'
    )
    (root / 'Test_set/trimaps/x_1.png').unlink()
    (root / 'Test_set/alpha/y.png').unlink()
    sentence = refused(test_mode=True)
    assert sentence.startswith('Test_set/merged/x_1.png: expected a file')
    assert 'in Test_set/trimaps, got none, as 2 of 6 maps' in sentence


def test_an_empty_folder_is_named(root, refused):
    for file in root.glob('train2014/*'):
        file.rename(file.with_suffix('.txt'))
    assert refused().startswith('train2014: expected images (.png .jpg')
    sentence = refused(data_prefix=dict(TRAINING, fg_path='nothing'))
    assert sentence.startswith('nothing: expected images')
    sentence = refused(data_prefix=dict(fg_path=f'{ADOBE}/fg'))
    assert 'expected alpha_path, got fg_path; name a folder' in sentence


def test_two_files_of_one_name_are_named(root, refused):
    write(root / 'Training_set/Other/fg/a.png', colors(1))
    assert refused().startswith(
        'Training_set/Other/fg/a.png: expected one file of that name, got '
    )


def test_lists_that_are_none_are_named(root, refused):
    place = dict(ann_file='test.txt', test_mode=True)
    assert 'test.txt: expected a list of files, got what' in refused(**place)
    (root / 'test.txt').write_text('\n')
    assert 'expected lines with composite, alpha and' in refused(**place)
    (root / 'test.txt').write_text('a.png b.png c.png\n')
    assert refused(**place) == (
        'test.txt, entry 1: expected composite, alpha and trimap, with tabs '
        "between them, got 'a.png b.png c.png'; correct it."
    )
    (root / 'test.txt').write_text('a.png\tb.png\tc.png\n')
    assert refused(**place) == (
        'test.txt, entry 1: expected a.png, which does not exist, as 3 of 3 '
        'files do not; put them there, or name their folder in data_root.'
    )


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[', 'expected a json file, got what cannot be read'),
        ('[]', 'expected a list of samples, or a dict with data_list'),
        ('{"a": 1}', 'expected a list of samples, or a dict with data_list'),
        (
            '[{"fg_path": "a", "alpha_path": "b"}]',
            'entry 1: expected fg_path, alpha_path, bg_path, got {',
        ),
        ('[1]', 'entry 1: expected fg_path, alpha_path, bg_path, got 1'),
    ],
)
def test_json_files_that_are_none_are_named(root, refused, text, words):
    (root / 'train.json').write_text(text)
    sentence = refused(ann_file='train.json')
    assert sentence.startswith('train.json') and words in sentence


# ------------------------------------------------ before the first iteration


def test_patterns_of_folders_exist_if_one_does(root):
    cfg = config(root, data_prefix=TRAINING)
    assert not [*missing_paths(cfg)]
    cfg['data_prefix'] = dict(TRAINING, fg_path='Training_set/*/nothing')
    assert [*missing_paths(cfg)] == [f'{root}/Training_set/*/nothing']


def test_samples_are_looked_at(root, build):
    check_loop('train', None, build(pipeline=TRAIN))
    check_loop('test', None, build(pipeline=LOAD_TEST, test_mode=True))
    write(root / 'Test_set/trimaps/y_10.png', disk((12, 18)))
    dataset = build(pipeline=LOAD_TEST, test_mode=True)
    with pytest.raises(ConfigError, match='y_10.png, 16 x 12, got 18 x 12;'):
        check_loop('test', None, dataset)


def test_alpha_in_other_units_is_named(root, build):
    for path in root.glob('Training_set/*/alpha/*'):
        path.unlink()
        write(path.with_suffix('.png'), disk(value=1))
    with pytest.raises(ConfigError) as caught:
        check_loop('train', None, build(pipeline=TRAIN))
    sentence = str(caught.value)
    assert 'in train_dataloader hold values up to 1 of 255, but' in sentence


def test_trimaps_without_unknown_pixels_are_named(root, build):
    for path in root.glob('Test_set/trimaps/*'):
        write(path, disk())
    dataset = build(pipeline=LOAD_TEST, test_mode=True)
    with pytest.raises(ConfigError, match='val_dataloader have no unknown'):
        check_loop('val', None, dataset)
