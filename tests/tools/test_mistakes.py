"""What a user may get wrong, answered in a sentence by all that predict."""

import cv2
import numpy as np
import pytest

from .conftest import KINDS

import compare_models  # isort: skip
import visualize_sapa  # isort: skip


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


LEFT_OUT = (
    *('._good.png is hidden', '.thumbnails/x.png is hidden'),
    *('empty.jpg: expected an image', 'text.jpg: expected an image'),
    *('gone.jpg: expected an image', 'cannot take'),
)


def test_what_is_no_image_is_left_out_and_named(
    write, mixed, compare, visualize, capsys
):
    path = write('seg', lambda cfg: None)
    rows, *_ = compare(path, mixed)
    assert [row.name for row in rows] == ['good', 'more']
    for said in (capsys.readouterr().out, None):
        said = said or (visualize(path, mixed), capsys.readouterr().out)[1]
        assert 'Left out (6):' in said
        assert all(words in said for words in LEFT_OUT)


def test_where_there_is_no_image_at_all_it_ends(
    write, mixed, compare, visualize
):
    path = write('seg', lambda cfg: None)
    for name in ('good.png', 'more.png'):
        (mixed / name).unlink()
    for tool in (compare, visualize):
        with pytest.raises(SystemExit, match='nothing to draw. Left out .6.:'):
            tool(path, mixed)


@pytest.mark.parametrize('name', ['text.jpg', 'empty.jpg', '._good.png'])
def test_what_was_named_and_is_no_image_ends_the_run(
    name, write, mixed, compare, visualize
):
    path = write('seg', lambda cfg: None)
    for tool in (compare, visualize):
        with pytest.raises(SystemExit, match=f'{name}: expected an image'):
            tool(path, mixed / name, mixed)


# ---- what a user may get wrong ----------------------------------------------


def test_devices_that_are_not_there_are_named(write, compare, capsys):
    path = write('seg', lambda cfg: None)
    for tool, first in (
        (compare_models, ('--model', path, 'x.pth')),
        (visualize_sapa, (path, 'x.pth', 'x.png')),
    ):
        for device in ('gpu', 'cuda:77', 'meta'):
            with pytest.raises(SystemExit):
                tool.main([*map(str, first), '--device', device])
            said = capsys.readouterr().err
            assert 'expected a device of this machine such as cpu' in said
            assert f'got {device}: ' in said


def test_settings_and_places_are_checked(write, compare, visualize, folder):
    path, image = write('seg', lambda cfg: None), folder / 'images/a.png'
    for word, words in (
        ('=3', 'expected KEY=VALUE after the checkpoint, got =3'),
        ('a=[1,(2]', 'a=.*: Imbalanced brackets'),
    ):
        with pytest.raises(SystemExit, match=words):
            compare_models.main(['--model', str(path), 'a.pth', word])
    pair = str(path), str(folder / 'seg_sapa.pth')
    for tool, words in (
        (compare_models, [str(image), '--model', *pair]),
        (visualize_sapa, [*pair, str(image)]),
    ):
        for out in (path, path / 'sheet.png'):  # it is a file
            with pytest.raises(SystemExit, match='expected a folder, got'):
                tool.main([*words, '--device', 'cpu', '--out', str(out)])


@KINDS
def test_checkpoints_of_other_models_are_named(kind, write, folder, tmp_path):
    path = write(kind, lambda cfg: None)
    image = str(folder / 'images/a.png')
    whole = (folder / f'{kind}_sapa.pth').read_bytes()
    other = folder / f'{dict(seg="det", det="seg")[kind]}_sapa.pth'
    for content, words in (
        (whole[:-300], 'expected a checkpoint'),
        (other.read_bytes(), r'does not fit .*\.py: 0 of \d+ weights fit'),
    ):
        checkpoint = tmp_path / 'x.pth'
        checkpoint.write_bytes(content)
        pair = [str(path), str(checkpoint)]
        for tool, arguments in (
            (compare_models, [image, '--model', *pair]),
            (visualize_sapa, [*pair, image]),
        ):
            arguments = [*arguments, '--device', 'cpu']
            with pytest.raises(SystemExit, match=f'x.pth:? {words}'):
                tool.main(arguments)


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
    # Of no truth nothing is known but by the checkpoint.
    _, _, classes, *_ = compare(path, folder / 'images/a.png')
    assert classes[0] == 'ground'
