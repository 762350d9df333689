import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsapa.engine.runner import build_runner
from mmsapa.registry import HOOKS

from .. import helpers

HOOK = dict(type='mmsapa.SAPAVisualizationHook', interval=2, stages=['.0'])
FAR = [(10000, 10000)]
WIDTH = 1050  # of a figure, in pixels


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Configs of small models, by kind, with their data."""
    folder = tmp_path_factory.mktemp('hook')
    return {
        kind: helpers.write_config(
            folder / f'{kind}.py', kind, helpers.make_data(folder, kind)
        )
        for kind in ('seg', 'det')
    }


@pytest.fixture
def train(configs, tmp_path, scope):
    """Train three iterations, with or without the hook."""

    def train(name, kind='seg', **settings):
        cfg = Config.fromfile(configs[kind])
        scope(cfg.default_scope)
        cfg.merge_from_dict(settings)
        cfg.train_cfg.update(max_iters=3, val_interval=3)
        cfg.work_dir = str(tmp_path / name)
        # mmengine keeps a visualizer for every name, with its folder.
        cfg.experiment_name = f'{tmp_path.name}_{kind}_{name}'
        cfg.visualizer.name = cfg.experiment_name
        cfg.launcher = 'none'
        for loader in ('train', 'val', 'test'):
            cfg[f'{loader}_dataloader'].num_workers = 0
            cfg[f'{loader}_dataloader'].persistent_workers = False
        runner = build_runner(cfg)
        runner.train()
        return runner, tmp_path / name

    return train


@pytest.mark.parametrize('kind', ['seg', 'det'])
def test_writes_figures_and_changes_nothing(train, kind):
    with_hook, folder = train('with', kind, custom_hooks=[HOOK])
    without, _ = train('without', kind, custom_hooks=[])
    for key, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, with_hook.model.state_dict()[key]), key
    figures = {path.name: path for path in folder.rglob('sapa_*.png')}
    # Every second iteration, and the first image of the validation.
    assert set(figures) == {'sapa_train_2.png', 'sapa_val_0_3.png'}
    for path in figures.values():
        assert cv2.imread(str(path)).shape[1] == WIDTH


def test_figures_reach_tensorboard(train):
    reader = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    backend = dict(type='TensorboardVisBackend')
    _, folder = train(
        'board', custom_hooks=[HOOK], visualizer=dict(vis_backends=[backend])
    )
    (events,) = folder.rglob('events.out.tfevents.*')
    board = reader.EventAccumulator(str(events)).Reload()
    assert set(board.Tags()['images']) == {'sapa_train', 'sapa_val_0'}
    (figure,) = board.Images('sapa_train')
    assert figure.step == 2
    pixels = np.frombuffer(figure.encoded_image_string, np.uint8)
    assert cv2.imdecode(pixels, cv2.IMREAD_COLOR).shape[1] == WIDTH


def test_a_figure_that_fails_stops_no_training(train):
    # Only the images tell that there is no such pixel.
    runner, folder = train('outside', custom_hooks=[dict(HOOK, points=FAR)])
    assert runner.iter == 3
    assert not list(folder.rglob('sapa_*.png'))
    (log,) = folder.rglob('*.log')
    assert (
        log.read_text().count('skipped the figure: points: expected x below')
        == 2
    )


def test_mistakes_stop_before_any_work(train):
    with pytest.raises(ValueError, match='expected parts of .*got none'):
        train('bad', custom_hooks=[dict(HOOK, stages=['none'])])
    with pytest.raises(ValueError, match='channel: expected 0 to .*got 999'):
        train('channel', custom_hooks=[dict(HOOK, channel=999)])
    with pytest.raises(ValueError, match='got compile=True'):
        train('compiled', custom_hooks=[HOOK], compile=True)
    with pytest.raises(ValueError, match='at most 3 in a figure, got 4'):
        HOOKS.build(dict(HOOK, points=4 * FAR))
    for bad in (dict(interval=0), dict(modes=['train', 'validate'])):
        with pytest.raises(ValueError, match='interval >= 1 and modes of'):
            HOOKS.build({**HOOK, **bad})
