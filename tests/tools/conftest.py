"""The tools that predict, on models and scenes of test_compare.py."""

import pytest
from mmengine.config import Config

from .test_compare import folder  # noqa: F401  a fixture, and sys.path

import compare_models  # isort: skip
import visualize_sapa  # isort: skip

LIBRARIES = dict(seg='mmseg', det='mmdet')
KINDS = pytest.mark.parametrize('kind', LIBRARIES)


@pytest.fixture
def write(folder, tmp_path, scope):  # noqa: F811
    """Write a config again, as a function of it says."""

    def write(kind, change):
        scope(LIBRARIES[kind])
        cfg = Config.fromfile(folder / f'{kind}.py')
        change(cfg)
        path = tmp_path / f'{kind}.py'
        # As text, whose layout would take longer than all else.
        path.write_text(
            '\n'.join(f'{k} = {v!r}' for k, v in cfg.to_dict().items())
        )
        return path

    return write


@pytest.fixture(autouse=True)
def no_layout(monkeypatch):
    """A runner's, that is."""
    monkeypatch.setattr(Config, 'pretty_text', '')


@pytest.fixture
def compare(folder, tmp_path, monkeypatch):  # noqa: F811
    """Run the tool with the model with SAPA; returns what it draws."""
    sheets = []
    draw = compare_models.draw_comparison
    monkeypatch.setattr(
        compare_models,
        'draw_comparison',
        lambda *args: sheets.append(args) or draw(*args),
    )

    def compare(config, *words, checkpoint=None):
        checkpoint = checkpoint or folder / f'{config.stem}_sapa.pth'
        arguments = (
            *(*words, '--model', config, checkpoint, '--score-thr', 0),
            *('--device', 'cpu', '--out', tmp_path / 'sheet.png'),
        )
        compare_models.main([str(word) for word in arguments])
        return sheets.pop()

    return compare


@pytest.fixture
def visualize(folder, tmp_path, monkeypatch):  # noqa: F811
    """Run the tool; returns the images that the models saw."""
    seen = []
    draw = visualize_sapa.draw_sapa_figure
    monkeypatch.setattr(
        visualize_sapa,
        'draw_sapa_figure',
        lambda recording, *args: (
            seen.append(recording.image) or draw(recording, *args)
        ),
    )

    def visualize(config, *words):
        arguments = (
            *(config, folder / f'{config.stem}_sapa.pth', *words),
            *('--stages', 'upsamplers.0', '--device', 'cpu'),
            *('--out', tmp_path / 'sheets'),
        )
        visualize_sapa.main([str(word) for word in arguments])
        return seen

    return visualize
