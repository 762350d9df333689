"""The photographs of alphamatting.com become data to train and test with."""

import cv2
import numpy as np
import pytest

from mmsapa.datasets import alphamatting
from mmsapa.engine.config import ConfigError
from mmsapa.registry import DATASETS


@pytest.fixture
def root(tmp_path):
    """27 images of a blue square on red, with a soft column at its right."""
    image = np.full((20, 40, 3), (0, 0, 200), np.uint8)
    image[5:15, 10:20] = 200, 0, 0
    alpha, trimap = (np.zeros((20, 40), np.uint8) for _ in range(2))
    alpha[5:15, 10:20] = trimap[5:15, 10:20] = 255
    # Its color is mixed, as in a photograph.
    image[5:15, 20:22], alpha[5:15, 20:22] = (100, 0, 100), 128
    trimap[5:15, 19:22] = 128
    for kind, pixels in dict(images=image, alpha=alpha, trimap=trimap).items():
        (tmp_path / kind).mkdir()
        for number in range(1, 28):
            name = f'{tmp_path}/{kind}/GT{number:02d}.png'
            assert cv2.imwrite(name, pixels)
    return tmp_path


@pytest.fixture
def convert(root, tmp_path, monkeypatch):
    monkeypatch.setattr(alphamatting, 'DRAWN', 1)

    def convert(**kwargs):
        out = str(tmp_path / 'out')
        return out, alphamatting.convert(str(root), out, nproc=1, **kwargs)

    return convert


def test_photographs_are_split_and_read(convert):
    out, made = convert(side=40)
    assert made
    kwargs = dict(type='Composition1kDataset', data_root=out, pipeline=[])
    prefix = dict(
        fg_path='Training_set/*/fg',
        alpha_path='Training_set/*/alpha',
        bg_path='backgrounds',
    )
    train = DATASETS.build(dict(**kwargs, data_prefix=prefix))
    names = {
        train.get_data_info(i)['fg_path'][-8:-4] for i in range(len(train))
    }
    assert len(train) == 21 and 'GT04' not in names and 'GT05' in names
    test = DATASETS.build(dict(**kwargs, test_mode=True))
    assert [x['img_path'][-8:-4] for x in test] == [
        f'GT{number:02d}' for number in alphamatting.TEST
    ]


def test_foreground_and_background_are_told_apart(convert):
    """Neither has the color of the other, where the photograph mixes them."""
    out, _ = convert(side=40)
    fg = cv2.imread(f'{out}/Training_set/photographs/fg/GT01.png')
    assert (fg[5:15, 10:22] == (200, 0, 0)).all()
    bg = cv2.imread(f'{out}/backgrounds/GT01.png').astype(int)
    assert abs(bg - (0, 0, 200)).max() < 3


def test_what_is_partly_unknown_stays_unknown(convert):
    out, _ = convert(side=20)
    trimap = cv2.imread(f'{out}/Test_set/trimaps/GT04.png', -1)
    assert trimap.shape == (10, 20)
    # Pixels 18 and 19, and 20 and 21, of which only 18 is known.
    assert not np.isin(trimap[3:7, 9:11], (0, 255)).any()
    assert (trimap[3:7, 5:9] == 255).all() and (trimap[:2] == 0).all()


def test_the_same_command_again_changes_nothing(convert, root):
    out, _ = convert()
    before = {p: p.stat().st_mtime_ns for p in root.joinpath('out').rglob('*')}
    assert convert() == (out, False)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_missing_files_and_foreign_folders_are_named(convert, root):
    (root / 'alpha/GT07.png').unlink()
    with pytest.raises(ConfigError, match='GT07.png: expected a file.*1 of 8'):
        convert()
    assert not (root / 'out').exists()
    with pytest.raises(ConfigError, match='at least 16 pixels, got 0'):
        convert(side=0)
    (root / 'out').mkdir()
    with pytest.raises(ConfigError, match='expected a new folder'):
        convert()
