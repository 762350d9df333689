"""Errors that the tools which predict report in a sentence."""

import cv2
import numpy as np
import pytest

from ..helpers import error

COMPARE, VISUALIZE = (
    f'analysis_tools/{name}' for name in ('compare_models', 'visualize_sapa')
)


@pytest.fixture
def mixed(folder, tmp_path):
    """A folder with two images, and what only looks like one."""
    place = tmp_path / 'mixed'
    (place / '.thumbnails').mkdir(parents=True)
    (place / 'dir.jpg').mkdir()
    image = (folder / 'images/a.png').read_bytes()
    for name in ('good.png', 'more.png', '.thumbnails/x.png'):
        (place / name).write_bytes(image)
    (place / '._good.png').write_bytes(b'\0\5\x16\7resource fork')
    (place / 'empty.jpg').touch()
    (place / 'text.jpg').write_text('<html>Not found</html>')
    (place / 'gone.jpg').symlink_to(place / 'nowhere.jpg')
    # No model takes it.
    cv2.imwrite(str(place / 'tiny.png'), np.zeros((1, 1, 3), np.uint8))
    return place


SKIPPED = (
    *('._good.png is hidden', '.thumbnails/x.png is hidden'),
    *('empty.jpg: expected an image', 'text.jpg: expected an image'),
    *('gone.jpg: expected an image', 'cannot take'),
)


def test_what_is_no_image_is_skipped_and_named(
    write, mixed, compare, visualize, capsys
):
    path = write('seg')
    rows, *_ = compare(path, mixed)
    assert [row.name for row in rows] == ['good', 'more']
    for said in (capsys.readouterr().out, None):
        said = said or (visualize(path, mixed), capsys.readouterr().out)[1]
        assert 'Skipped (6):' in said
        assert all(words in said for words in SKIPPED)


def test_where_there_is_no_image_at_all_it_ends(
    write, mixed, compare, visualize
):
    path = write('seg')
    for name in ('good.png', 'more.png'):
        (mixed / name).unlink()
    for tool in (compare, visualize):
        with pytest.raises(SystemExit, match='nothing to draw. Skipped .6.:'):
            tool(path, mixed)


@pytest.mark.parametrize('name', ['text.jpg', 'empty.jpg', '._good.png'])
def test_what_was_named_and_is_no_image_ends_the_run(
    name, write, mixed, compare, visualize
):
    path = write('seg')
    for tool in (compare, visualize):
        with pytest.raises(SystemExit, match=f'{name}: expected an image'):
            tool(path, mixed / name, mixed)


def test_devices_that_are_not_there_are_named(monkeypatch, capsys):
    for tool, *words in (
        (COMPARE, '--model', 'x.py', 'x.pth'),
        (VISUALIZE, 'x.py', 'x.pth', 'x.png'),
    ):
        for device in ('gpu', 'cuda:77', 'meta'):
            error(monkeypatch, tool, *words, '--device', device)
            said = capsys.readouterr().err
            assert 'expected a device of this machine such as cpu' in said
            assert f'got {device}: ' in said


def test_settings_and_places_are_checked(write, folder, monkeypatch):
    path, image = write('seg'), folder / 'images/a.png'
    for word, words in (
        ('=3', 'expected KEY=VALUE after the checkpoint, got =3'),
        ('a=[1,(2]', 'a=[1,(2]: Imbalanced brackets'),
    ):
        said = error(monkeypatch, COMPARE, '--model', path, 'a.pth', word)
        assert words in said
    pair = path, folder / 'seg_sapa.pth'
    for tool, *words in (
        (COMPARE, image, '--model', *pair),
        (VISUALIZE, *pair, image),
    ):
        for out in (path, path / 'figure.png'):  # it is a file
            out = '--device', 'cpu', '--out', out
            said = error(monkeypatch, tool, *words, *out)
            assert 'expected a folder, got' in said


def test_checkpoints_of_other_models_are_named(
    kind, write, folder, tmp_path, monkeypatch
):
    path, image = write(kind), folder / 'images/a.png'
    whole = (folder / f'{kind}_sapa.pth').read_bytes()
    other = folder / f'{dict(seg="det", det="seg")[kind]}_sapa.pth'
    checkpoint = tmp_path / 'x.pth'
    for content, words in (
        (whole[:-300], 'x.pth: expected a checkpoint'),
        (other.read_bytes(), f'x.pth does not fit {path}: 0 of '),
    ):
        checkpoint.write_bytes(content)
        for tool, *arguments in (
            (COMPARE, image, '--model', path, checkpoint),
            (VISUALIZE, path, checkpoint, image),
        ):
            out = '--device', 'cpu', '--out', tmp_path / 'out'
            assert words in error(monkeypatch, tool, *arguments, *out)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            {'model.decode_head.upsample_cfg.varient': 'B'},
            'its model cannot be built: .*SAPA.*got varient too',
        ),
        (
            {'model.decode_head.upsample_cfg.type': 'sappa'},
            "its model cannot be built: .*got type='sappa'",
        ),
        (
            {'test_dataloader.dataset.pipeline.1.type': 'LoadNothing'},
            'its test pipeline cannot be built: .*LoadNothing',
        ),
    ],
)
def test_what_cannot_be_built_is_named(change, words, write, compare, folder):
    path = write('seg', lambda cfg: cfg.merge_from_dict(change))
    with pytest.raises(SystemExit, match=words):
        compare(path, folder / 'images/a.png')


def test_data_of_other_classes_is_named(write, compare, folder):
    def change(cfg):
        metainfo = cfg.test_dataloader.dataset.metainfo
        metainfo.classes = metainfo.classes[::-1]

    path = write('seg', change)
    with pytest.raises(SystemExit, match='ground, disc, .* got spiral, bar'):
        compare(path)
    # Without ground truth the checkpoint alone tells the classes.
    _, _, classes, *_ = compare(path, folder / 'images/a.png')
    assert classes[0] == 'ground'
