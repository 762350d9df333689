"""Sheets of SAPA layers, from the command line."""

import cv2
import pytest

from .test_compare import folder  # noqa: F401  a fixture, and sys.path

import visualize_sapa as tool  # isort: skip


@pytest.fixture
def run(folder, tmp_path, capsys, scope):  # noqa: F811
    def run(kind, *arguments):
        scope('mmseg' if kind == 'seg' else 'mmdet')
        pair = folder / f'{kind}.py', folder / f'{kind}_sapa.pth'
        out = tmp_path / 'out'
        if '--out' not in arguments:
            arguments += '--out', out
        tool.main([str(x) for x in (*pair, *arguments)])
        sheets = {
            path.relative_to(out).as_posix(): cv2.imread(str(path))
            for path in out.rglob('*.png')
        }
        return capsys.readouterr().out, sheets

    return run


@pytest.mark.parametrize('kind', ['seg', 'det'])
def test_draws_a_folder_of_images_of_odd_sizes(run, folder, kind):  # noqa: F811
    out, sheets = run(kind, folder / 'images', '--stages', 'upsamplers.0')
    assert set(sheets) == {'a.png', 'more/b.png'}
    assert 'a.png' in out
    for sheet in sheets.values():
        assert sheet.std() > 20
    again = run(kind, folder / 'images', '--stages', 'upsamplers.0')[1]
    for name, sheet in again.items():
        assert (sheet == sheets[name]).all()


def test_a_single_sheet_may_have_a_name(run, folder, tmp_path):  # noqa: F811
    sheet = tmp_path / 'some/sheet.png'
    run('seg', folder / 'images/a.png', '--out', sheet)
    assert cv2.imread(str(sheet)).std() > 20


def test_lists_stages(run):
    out, sheets = run('seg', '--list')
    assert [line for line in out.splitlines() if 'upsamplers' in line] == [
        f'decode_head.upsamplers.{i}.{j}.layer'
        for i in range(3)
        for j in range(i + 1)
    ]
    assert not sheets


def test_mistakes_are_named(run, folder, capsys):  # noqa: F811
    image = folder / 'images/a.png'
    for arguments, words in (
        ((image, '--stages', 'neck'), 'expected parts of decode_head'),
        ((image, '--points', '45,3'), 'x below 45 and y below 67, got 45,3'),
        ((image, '--channel', '99'), 'expected 0 to 15, got 99'),
        ((folder / 'images', '--out', 'a.png'), 'a folder for 2 images'),
        ((folder / 'none.png',), 'There is no image or folder'),
    ):
        with pytest.raises(SystemExit) as stop:
            run('seg', *arguments)
        assert words in str(stop.value)
    for arguments, words in (
        ((), 'expected images or folders'),
        ((image, '--points', '4'), 'expected x,y in pixels'),
    ):
        with pytest.raises(SystemExit):
            run('seg', *arguments)
        assert words in capsys.readouterr().err
