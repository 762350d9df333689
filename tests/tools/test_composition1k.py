"""The test set of Composition-1K, composed from Adobe's folders."""

import math
import os
import signal
import time

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmsapa.datasets.composition1k_composer import compose_test_set
from mmsapa.engine.config import ConfigError

from ..helpers import call, error, finish, start, tool

TOOL = 'dataset_converters/composition1k'
FOLDER = 'Test_set/Adobe-licensed images'
SIZES = (40, 30), (25, 60)  # of the foregrounds, width and height
BG_SIZES = (50, 40), (33, 19), (26, 61), (10, 12)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two foregrounds with two backgrounds each, as Adobe has 50 and 20."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'adobe'
    for name, (width, height) in zip('ab', SIZES):
        fg, alpha = (
            rng.integers(0, 256, (height, width, *channels), np.uint8)
            for channels in ((3,), ())
        )
        alpha[:, :5], alpha[:, 5:9] = 0, 255
        save(root / FOLDER / f'fg/{name}.png', fg)
        save(root / FOLDER / f'alpha/{name}.png', alpha)
        for j in range(2):
            trimap = np.full((height, width), 100 + j, np.uint8)
            save(root / FOLDER / f'trimaps/{name}_{j}.png', trimap)
    (root / 'Test_set/test_fg_names.txt').write_text('a.png\r\nb.png\r\n')
    names = [f'2008_{i}.jpg' for i in range(4)]
    (root / 'Test_set/test_bg_names.txt').write_text('\n'.join(names))
    for name, (width, height) in zip(names, BG_SIZES):
        bg = rng.integers(0, 256, (height, width, 3), np.uint8)
        save(tmp_path / 'voc' / name, cv2.blur(bg, (3, 3)))
    return root


def slow_composite(fg, alpha, bg):
    """Pixel by pixel; ⌊αF + (1 - α)B⌋ with the top-left of the background."""
    width, height = fg.size
    ratio = max(width / bg.width, height / bg.height)
    if ratio > 1:
        size = math.ceil(bg.width * ratio), math.ceil(bg.height * ratio)
        bg = bg.resize(size, Image.BICUBIC)
    out = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            share = alpha.getpixel((x, y)) / 255
            front, behind = fg.getpixel((x, y)), bg.getpixel((x, y))
            for c in range(3):
                out[y, x, c] = int(share * front[c] + (1 - share) * behind[c])
    return out


def files(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_composites_are_those_of_adobes_script(
    root, tmp_path, monkeypatch, capsys, scope
):
    call(monkeypatch, TOOL, root, '--bg', tmp_path / 'voc', '--nproc', 1)
    assert '4 composites made in' in capsys.readouterr().out
    for i, name in enumerate('ab'):
        fg, alpha = (
            Image.open(root / FOLDER / f'{kind}/{name}.png')
            for kind in ('fg', 'alpha')
        )
        for j in range(2):
            bg = Image.open(tmp_path / f'voc/2008_{2 * i + j}.jpg')
            found = Image.open(root / f'Test_set/merged/{name}_{j}.png')
            np.testing.assert_array_equal(
                np.asarray(found), slow_composite(fg, alpha, bg)
            )
            for kind in ('trimaps', 'alpha'):
                file = (
                    f'{name}_{j}.png' if kind == 'trimaps' else f'{name}.png'
                )
                copy = root / 'Test_set' / kind / file
                original = root / FOLDER / kind / file
                assert copy.read_bytes() == original.read_bytes()
    assert not [*root.rglob('*.partial')]
    # What was made is a test set, by its folders as by its list.
    scope('mmsapa')
    for more in dict(), dict(ann_file='test.txt'):
        dataset = DATASETS.build(
            dict(
                type='Composition1kDataset',
                data_root=str(root),
                test_mode=True,
                **more,
            )
        )
        infos = [dataset.get_data_info(i) for i in range(4)]
        assert [os.path.basename(x['alpha_path']) for x in infos] == [
            *['a.png'] * 2,
            *['b.png'] * 2,
        ]


def test_what_is_there_is_not_made_again(root, tmp_path):
    out, voc = tmp_path / 'out', [str(tmp_path / 'voc')]
    assert compose_test_set(str(root), voc, str(out), nproc=1) == 4
    before = files(out)
    (out / 'Test_set/merged/a_1.png').unlink()
    # What an interruption may leave.
    (out / 'Test_set/merged/a_1.png.partial').write_bytes(b'half')
    assert compose_test_set(str(root), voc, str(out), nproc=2) == 1
    after = files(out)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {'Test_set/merged/a_1.png', 'test.txt'}
    assert not (root / 'Test_set/merged').exists()


def test_an_interruption_leaves_whole_files_alone(root, tmp_path):
    rng = np.random.default_rng(0)
    fg = rng.integers(0, 256, (300, 300, 3), np.uint8)
    save(root / FOLDER / 'fg/a.png', fg)
    save(root / FOLDER / 'alpha/a.png', fg[..., 0])
    count = 100
    for j in range(count):
        save(root / FOLDER / f'trimaps/a_{j}.png', fg[..., 1])
    (root / 'Test_set/test_fg_names.txt').write_text('a.png')
    (root / 'Test_set/test_bg_names.txt').write_text('2008_0.jpg\n' * count)
    command = tool(TOOL, root, '--bg', tmp_path / 'voc', '--nproc', 1)
    process = start(tmp_path, *command)
    deadline = time.monotonic() + 600
    merged = root / 'Test_set/merged'
    while not [*merged.glob('*.png')]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert 'Traceback' not in output and 'The same command goes on' in output
    made = [*merged.glob('*.png')]
    assert 0 < len(made) < count
    for path in made:
        Image.open(path).load()
    assert not (root / 'test.txt').exists()


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda root: (root / 'Test_set/test_bg_names.txt').unlink(),
            "test_bg_names.txt: expected Adobe's list of names, got what",
        ),
        (
            lambda root: (root / 'Test_set/test_fg_names.txt').write_text(
                'a.png\nb.png\nc.png'
            ),
            'for each of 3 foregrounds, 20 in Composition-1K, got 4; take',
        ),
        (
            lambda root: (root / FOLDER / 'alpha').rename(root / 'alpha'),
            'alpha: expected a folder of images, got none; unpack',
        ),
        (
            lambda root: (root / FOLDER / 'trimaps/b_0.png').unlink(),
            'trimaps/b_0.png or .jpg: expected a file, got none, as 1 of 12',
        ),
        (
            lambda root: (root.parent / 'voc/2008_2.jpg').unlink(),
            'voc/2008_2.png or .jpg: expected a file, got none, as 1 of 12',
        ),
        (
            lambda root: (root.parent / 'voc/2008_2.jpg').write_bytes(b'no'),
            'voc/2008_2.jpg: expected an image, got what cannot be read: ',
        ),
        (
            lambda root: save(
                root / FOLDER / 'alpha/b.png', np.zeros((9, 7), np.uint8)
            ),
            'fg/b.png, 25 x 60, got 7 x 9; pair it with its image.',
        ),
    ],
)
def test_what_does_not_fit_is_named(root, tmp_path, monkeypatch, spoil, words):
    spoil(root)
    voc = tmp_path / 'voc'
    sentence = error(monkeypatch, TOOL, root, '--bg', voc, '--nproc', 1)
    assert words in sentence


def test_processes_hand_over_what_does_not_fit(root, tmp_path):
    (tmp_path / 'voc/2008_2.jpg').write_bytes(b'no')
    with pytest.raises(ConfigError, match='2008_2.jpg: expected an image'):
        compose_test_set(str(root), [str(tmp_path / 'voc')], nproc=2)
