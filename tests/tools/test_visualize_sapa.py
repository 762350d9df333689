"""Figures of SAPA layers, from the command line."""

import cv2
import pytest

from ..helpers import call, error

TOOL = 'analysis_tools/visualize_sapa'


@pytest.fixture
def run(folder, tmp_path, capsys, scope, monkeypatch):
    """Run the tool; return what it prints, and its figures by name."""

    def run(kind, *arguments):
        scope('mmseg' if kind == 'seg' else 'mmdet')
        pair = folder / f'{kind}.py', folder / f'{kind}_sapa.pth'
        out = tmp_path / 'out'
        if '--out' not in arguments:
            arguments += '--out', out
        call(monkeypatch, TOOL, *pair, *arguments, '--device', 'cpu')
        figures = {
            path.relative_to(out).as_posix(): cv2.imread(str(path))
            for path in out.rglob('*.png')
        }
        return capsys.readouterr().out, figures

    return run


def test_draws_a_folder_of_images_of_odd_sizes(run, folder, kind, drawn):
    words = folder / 'images', '--stages', 'upsamplers.0'
    out, figures = run(kind, *words)
    assert set(figures) == {'a.png', 'more/b.png'}
    assert 'a.png' in out
    # Two rows for one layer, and each image with its own shape.
    assert [len(recording.stages) for recording, *_ in drawn] == [1, 1]
    assert len({figure.shape for figure in figures.values()}) == 2
    again = run(kind, *words)[1]
    for name, figure in again.items():
        assert (figure == figures[name]).all()


def test_a_single_figure_may_have_a_name(run, folder, tmp_path):
    figure = tmp_path / 'some/figure.png'
    run('seg', folder / 'images/a.png', '--out', figure)
    assert cv2.imread(str(figure)) is not None


def test_lists_stages(run):
    out, figures = run('seg', '--list')
    assert [line for line in out.splitlines() if 'upsamplers' in line] == [
        f'decode_head.upsamplers.{i}.{j}.layer'
        for i in range(3)
        for j in range(i + 1)
    ]
    assert not figures


def test_mistakes_are_named(folder, tmp_path, monkeypatch, capsys, scope):
    def error_of(*arguments):
        pair = folder / 'seg.py', folder / 'seg_sapa.pth'
        if '--out' not in arguments:
            arguments += '--out', tmp_path / 'out'
        return error(monkeypatch, TOOL, *pair, *arguments, '--device', 'cpu')

    scope('mmseg')
    image = folder / 'images/a.png'
    for arguments, words in (
        ((image, '--stages', 'neck'), 'expected parts of decode_head'),
        ((image, '--points', '45,3'), 'x below 45 and y below 67, got 45,3'),
        ((image, '--channel', '99'), 'expected 0 to 15, got 99'),
        ((folder / 'images', '--out', 'a.png'), 'a folder for 2 images'),
        ((folder / 'none.png',), 'There is no image or folder'),
    ):
        assert words in error_of(*arguments)
    for arguments, words in (
        ((), 'expected images or folders'),
        ((image, '--points', '4'), 'expected x,y in pixels'),
    ):
        error_of(*arguments)
        assert words in capsys.readouterr().err
