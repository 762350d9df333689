"""Small models with random weights, scenes, and the tools that predict."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmsapa import visualization
from mmsapa.datasets.demo_data import make_dataset, make_scene
from mmsapa.engine import timing
from mmsapa.engine.runner import build_runner

from ..helpers import CONFIGS, ROOT, SMALL, call, error, save_weights

LIBRARIES = dict(seg='mmseg', det='mmdet', depth='mmseg', matting='mmsapa')
DATA = """
test_dataloader = dict(dataset=dict(data_root='{root}'))
"""
NEAREST = dict(
    seg='model = dict(decode_head=dict(upsample_cfg=None))',
    det='model = dict(neck=dict(upsample_cfg=None))',
    depth='model = dict(decode_head=dict(upsample_cfg=None))',
    matting='model = dict(decode_head=dict(upsample_cfg=None))',
)


@pytest.fixture
def briefly(monkeypatch):
    """Time models by single calls, which need not last."""
    measure = partial(timing.time_in_rounds, shortest=0)
    monkeypatch.setattr(timing, 'time_in_rounds', measure)


@pytest.fixture(params=['seg', 'det'])
def kind(request):
    """Segmentation or detection."""
    return request.param


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Configs, checkpoints by the name of the upsampler, data and images."""
    folder = tmp_path_factory.mktemp('compare')
    for layout in ('ade', 'coco', 'nyu', 'comp1k'):
        make_dataset(str(folder), layout, 1, 2, size=64, nproc=1)
    for kind, root in (
        ('seg', 'ade/ADEChallengeData2016'),
        ('det', 'coco'),
        ('depth', 'nyu'),
        ('matting', 'comp1k'),
    ):
        text = (SMALL[kind] + DATA).replace('{root}', str(folder / root))
        path, other = folder / f'{kind}.py', folder / f'{kind}_nearest.py'
        path.write_text(f'_base_ = {str(ROOT / CONFIGS[kind])!r}{text}')
        other.write_text(f'_base_ = {str(path)!r}\n{NEAREST[kind]}')
        meta = Config.fromfile(path).test_dataloader.dataset.get('metainfo')
        meta = dict(meta or {})
        torch.manual_seed(0)
        save_weights(folder / f'{kind}_sapa.pth', path, dataset_meta=meta)
        save_weights(folder / f'{kind}_nearest.pth', other, dataset_meta=meta)
    (folder / 'images/more').mkdir(parents=True)
    (folder / 'labels/more').mkdir(parents=True)
    scene = make_scene(0, 128)
    for name, (height, width) in {
        'a': (67, 45),
        'more/b': (40, 127),
    }.items():
        image = scene.image[:height, :width]
        cv2.imwrite(str(folder / f'images/{name}.png'), image)
        labels = scene.semantic()[:height, :width]
        cv2.imwrite(str(folder / f'labels/{name}.png'), labels)
    return folder


@pytest.fixture
def write(folder, tmp_path, scope):
    """Write a config again, changed by a function."""

    def write(kind, change=lambda cfg: None):
        scope(LIBRARIES[kind])
        cfg = Config.fromfile(folder / f'{kind}.py')
        change(cfg)
        path = tmp_path / f'{kind}.py'
        # Without yapf's layout, which would take longer than all else.
        path.write_text(
            '\n'.join(f'{k} = {v!r}' for k, v in cfg.to_dict().items())
        )
        return path

    return write


@pytest.fixture
def refused(monkeypatch, config, tmp_path):
    """Return the sentence that training ends with before any iteration."""

    def refused(*options):
        work_dir = tmp_path / 'work'
        sentence = error(
            monkeypatch,
            *('train', config, '--work-dir', work_dir),
            *(('--cfg-options', *options) if options else ()),
        )
        assert 'Iter(' not in ''.join(
            log.read_text() for log in work_dir.glob('*/*.log')
        )
        return sentence

    return refused


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each figure that a tool draws in this process."""
    calls = []
    for name in ('draw_comparison', 'draw_sapa_figure'):
        draw = getattr(visualization, name)
        monkeypatch.setattr(
            visualization,
            name,
            lambda *args, draw=draw, **options: (
                calls.append((*args, *options.values()))
                or draw(*args, **options)
            ),
        )
    return calls


@pytest.fixture
def compare(folder, tmp_path, monkeypatch, drawn):
    """Run the tool with the model with SAPA; returns what it draws."""

    def compare(config, *words, checkpoint=None):
        checkpoint = checkpoint or folder / f'{config.stem}_sapa.pth'
        call(
            monkeypatch,
            'analysis_tools/compare_models',
            *(*words, '--model', config, checkpoint, '--score-thr', 0),
            *('--device', 'cpu', '--out', tmp_path / 'figure.png'),
        )
        return drawn.pop()

    return compare


@pytest.fixture
def visualize(folder, tmp_path, monkeypatch, drawn):
    """Run the tool; returns the images that the models saw."""

    def visualize(config, *words):
        drawn.clear()
        call(
            monkeypatch,
            'analysis_tools/visualize_sapa',
            *(config, folder / f'{config.stem}_sapa.pth', *words),
            *('--stages', 'upsamplers.0', '--device', 'cpu'),
            *('--out', tmp_path / 'figures'),
        )
        return [recording.image for recording, *_ in drawn]

    return visualize


def same(a, b):
    """Assert that two predictions, or ground truths, are the same."""
    a, b = (getattr(values, 'bboxes', values) for values in (a, b))
    np.testing.assert_array_equal(a, b)


class Predictions(Hook):
    """Keeps what a test predicts."""

    def __init__(self):
        self.found = []

    def after_test_iter(self, runner, batch_idx, data_batch, outputs):
        self.found += outputs


def run_test(path, checkpoint, work_dir):
    """Predictions of all test data, by the runner."""
    cfg = Config.fromfile(path)
    cfg.update(work_dir=str(work_dir), load_from=str(checkpoint))
    cfg.launcher = 'none'
    cfg.visualizer.name = cfg.experiment_name = work_dir.name
    if cfg.default_scope == 'mmdet':
        # CocoMetric would need an annotation file with every item once.
        out = str(work_dir / 'out.pkl')
        cfg.test_evaluator = dict(type='DumpDetResults', out_file_path=out)
    runner = build_runner(cfg)
    hook = Predictions()
    runner.register_hook(hook)
    runner.test()
    return hook.found
