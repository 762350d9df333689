"""The controlled comparison as a user runs it, on scenes of 64 pixels."""

import json
import os
import pickle
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ..helpers import (
    CONFIGS,
    ROOT,
    call,
    error,
    finish,
    make_data,
    start,
    tool,
    wait_for_note,
    write_config,
)
from ..pure_python import write_pure_python

pytest.importorskip('mmseg')

from mmsapa.engine import controlled_comparison as controlled  # noqa: E402
from mmsapa.engine.checkpoint import (  # noqa: E402
    CheckpointError,
    read_checkpoint,
)
from mmsapa.engine.runner import load_config  # noqa: E402

TOOL = 'analysis_tools/compare_upsamplers'
# With dropout, since a resumed training must draw the same.
MORE = """
model['backbone'].update(drop_path_rate=0.2)
model['decode_head'].update(dropout_ratio=0.2)
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}'))
test_dataloader = dict(dataset=dict(data_root='{root}'))
train_cfg = dict(max_iters=12)
default_hooks = dict(
    logger=dict(interval=2), checkpoint=dict(interval=2))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('comparison')
    root = make_data(folder, 'seg', 8, 3)
    return write_config(folder / 'config.py', 'seg', root, MORE)


def figures(out):
    """All figures of a comparison, but time and memory."""
    rows = json.loads((out / 'comparison.json').read_text())['rows']
    for row in rows:
        for measured in (row, *row['runs']):
            for key in measured.keys() & {'seconds', 'peak_bytes'}:
                assert np.min(measured.pop(key)) > 0
    return rows


def test_a_comparison_ends_the_same_after_a_kill(
    config, tmp_path, monkeypatch, capsys, scope
):
    out = tmp_path / 'out'
    words = '--config', config, '--out', out, '--upsamplers', 'sapa-g'
    process = start(tmp_path, *tool(TOOL, *words))
    wait_for_note(process, out / 'seed-0/sapa-g')
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    result = out / 'seed-0/sapa-g/result.json'
    assert not result.exists()

    words = *words, 'bilinear'
    call(monkeypatch, TOOL, *words)
    assert (out / 'comparison.md').read_text() in capsys.readouterr().out
    assert cv2.imread(str(out / 'comparison.png')) is not None
    log = result.with_name('run.log').read_text()
    assert re.search(r'resumed epoch: 0, iter: \d', log)
    rows = figures(out)
    assert [row['upsampler'] for row in rows] == ['sapa-g', 'bilinear']
    for key in ('params', 'flops'):
        assert rows[0][key] > rows[1][key]
    assert all(0 < row['runs'][0]['mBIoU'] < 100 for row in rows)

    # The same training without an interruption, in this process.
    scope('mmseg')
    cfg, path = load_config(str(config)), tmp_path / 'seed-0/init.pth'
    controlled.save_initial_state(cfg, 0, path)
    cfg = controlled.candidate_config(cfg, 'sapa-g', 0, path)
    metrics = controlled.train_and_test(cfg, lambda done: None)
    del metrics['peak_bytes']
    assert rows[0]['runs'] == [dict(metrics, seed=0)]
    theirs, ours = (
        read_checkpoint(str(folder / 'iter_12.pth'))['state_dict']
        for folder in (result.parent, path.with_name('sapa-g'))
    )
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)

    # A folder is one config's, and keeps what is finished.
    other = '--cfg-options', 'optim_wrapper.optimizer.lr=0.1'
    message = error(monkeypatch, TOOL, *words, *other)
    assert 'out holds a comparison with another config: expected' in message
    (out / 'seed-0/nearest').touch()  # no folder
    message = error(monkeypatch, TOOL, *words, 'nearest')
    assert re.search('1 of 3 trainings failed.*seed-0/nearest', message)
    assert figures(out) == rows


class Record(Hook):
    """Weights at the start of a training, its images and random numbers."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        Record.last = self  # a runner has a copy of what its config holds
        state = runner.model.state_dict()
        self.weights = {key: value.clone() for key, value in state.items()}
        self.seen, self.random = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.random.append((torch.get_rng_state().tolist(), np.random.rand()))
        self.seen += [
            (Path(sample.img_path).name, sample.flip, sample.flip_direction)
            for sample in data_batch['data_samples']
        ]

    def after_train(self, runner):
        # Or garbage collection, which waits five seconds for its workers.
        runner.train_loop.dataloader_iterator = None


@pytest.fixture
def record(config, tmp_path, scope):
    """Train one candidate in this process."""
    scope('mmseg')

    def record(name, seed):
        cfg = load_config(str(config))
        path = tmp_path / f'seed-{seed}/init.pth'
        controlled.save_initial_state(cfg, seed, path)
        cfg = controlled.candidate_config(cfg, name, seed, path)
        cfg.train_cfg.max_iters = 4
        cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.train_dataloader.dataset.pipeline[-1].meta_keys = (
            *('img_path', 'flip', 'flip_direction'),
        )
        cfg.custom_hooks = [dict(type=Record)]
        controlled.train_and_test(cfg, lambda done: None)
        return Record.last

    return record


def test_candidates_of_a_seed_differ_in_their_upsamplers_alone(record):
    first, other = (record(name, 3) for name in ('nearest', 'sapa-g'))
    assert other.seen == first.seen
    assert other.random == first.random
    assert other.weights.keys() > first.weights.keys()
    for key, weight in first.weights.items():
        assert torch.equal(other.weights[key], weight)
    assert len(set(first.seen)) > 4
    other_seed = record('nearest', 4)
    assert other_seed.seen != first.seen
    assert other_seed.random != first.random
    assert any(
        not torch.equal(other_seed.weights[key], weight)
        for key, weight in first.weights.items()
    )


def test_candidates_may_start_from_a_trained_model(config, tmp_path, scope):
    scope('mmseg')
    cfg = load_config(str(config))
    trained, first, second = (tmp_path / f'{i}.pth' for i in range(3))
    controlled.save_initial_state(cfg, 7, trained)
    cfg.load_from = str(trained)
    for seed, path in enumerate((first, second)):
        controlled.save_initial_state(cfg, seed, path)
        theirs, ours = (torch.load(x)['state_dict'] for x in (trained, path))
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    key = next(iter(theirs))
    del theirs[key]
    torch.save(dict(state_dict=theirs), trained)
    with pytest.raises(
        CheckpointError, match=f'without weights in its.*{key}'
    ):
        controlled.save_initial_state(cfg, 0, tmp_path / 'new.pth')


def test_pure_python_and_wrapped_data_are_compared(config, tmp_path, scope):
    """Without default hooks and workers, too."""
    scope('mmseg')
    cfg = Config.fromfile(config)
    for name in ('train', 'test'):
        loader = cfg[f'{name}_dataloader']
        repeated = dict(
            type='RepeatDataset', times=2, dataset=loader.dataset.to_dict()
        )
        loader.dataset = dict(type='ConcatDataset', datasets=[repeated])
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_iters = 2
    cfg.pop('default_hooks')
    write_pure_python(cfg, 'mmseg', tmp_path / 'pure.py')
    cfg = load_config(str(tmp_path / 'pure.py'))
    path = tmp_path / 'init.pth'
    controlled.save_initial_state(cfg, 0, path)
    cfg = controlled.candidate_config(cfg, 'fade', 0, path)
    # As it reaches the process that trains it.
    cfg, done = pickle.loads(pickle.dumps(cfg)), []
    result = controlled.train_and_test(cfg, done.append)
    assert done == [0, 1, 2]
    assert 0 < result['mBIoU'] < 100
    assert result['peak_bytes'] > 1e8


def test_mattors_are_compared(tmp_path, scope):
    root = make_data(tmp_path, 'matting', 4, 1)
    path = write_config(tmp_path / 'config.py', 'matting', root)
    scope('mmsapa')
    cfg = load_config(str(path))
    cfg.train_cfg.max_iters = 1
    path = tmp_path / 'init.pth'
    controlled.save_initial_state(cfg, 0, path)
    cfg = controlled.candidate_config(cfg, 'sapa-i', 0, path)
    result = controlled.train_and_test(cfg, lambda done: None)
    assert all(result[key] > 0 for key in ('SAD', 'MSE', 'Grad', 'Conn'))


def test_the_mean_and_the_spread_are_those_over_seeds(
    tmp_path, monkeypatch, capsys
):
    result = json.loads((ROOT / 'docs/comparison/fine-tuned.json').read_text())
    values = iter([30, 31, 35])
    for trained in result['rows'][0]['runs']:
        trained['mIoU'] = next(values)
    (tmp_path / 'file.json').write_text(json.dumps(result))
    call(monkeypatch, TOOL, '--show', tmp_path / 'file.json')
    assert '32.00 ± 2.65' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['from-scratch', 'fine-tuned'])
def test_the_pages_in_docs_are_those_of_their_json(name, monkeypatch, capsys):
    path = ROOT / f'docs/comparison/{name}.json'
    call(monkeypatch, TOOL, '--show', path)
    # mmsegmentation's fork prints when it is imported.
    printed = capsys.readouterr().out
    assert printed.endswith(path.with_suffix('.md').read_text())


@pytest.mark.parametrize('content', ['{"rows": [', '[]', '{}', None])
def test_what_is_no_comparison_is_named(content, tmp_path, monkeypatch):
    path = tmp_path / 'file.json'
    if content:
        path.write_text(content)
    message = error(monkeypatch, TOOL, '--show', path)
    assert message.startswith(f'{path}: expected a comparison, got')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--upsamplers', 'sapa'], r"'sapa' \(choose from .*sapa-g"),
        (['--jobs', 'two'], '--jobs: expected a whole number, got two'),
        (['--seeds', '1.5'], '--seeds: expected a whole number, got 1.5'),
    ],
)
def test_bad_arguments_are_named(arguments, words, monkeypatch, capsys):
    error(monkeypatch, TOOL, *arguments)
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--config', 'no.py'], 'There is no config file no.py'),
        (
            ['--config', ROOT / CONFIGS['det']],
            'mattor with an upsample_cfg',
        ),
        (['--cfg-options', 'load_from=no.pth'], 'no checkpoint no.pth'),
        (
            ['--cfg-options', 'train_cfg.max_iters=4', 'test_dataloader=None'],
            'and a test_dataloader',
        ),
        (
            ['--cfg-options', 'test_dataloader.dataset.data_root=no'],
            'needs no/',
        ),
        (['--out', ROOT / 'setup.py'], 'expected a folder, got .*setup.py'),
    ],
)
def test_what_does_not_fit_is_named(
    options, words, config, tmp_path, monkeypatch
):
    options = ['--config', config, '--out', tmp_path, *options]
    assert re.search(words, error(monkeypatch, TOOL, *options))


# ---- depth ------------------------------------------------------------------

DEPTH = """
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}'))
test_dataloader = dict(dataset=dict(data_root='{root}'))
test_evaluator = dict(crop_type='eigen')
train_cfg = dict(max_iters=2)
"""


def test_depth_estimators_are_compared_by_depth(
    tmp_path, monkeypatch, capsys, scope
):
    root = make_data(tmp_path, 'depth', 4, 2)
    config = write_config(tmp_path / 'depth.py', 'depth', root, DEPTH)
    # Trained in this process; the tool goes on from there.
    scope('mmseg')
    cfg, start = load_config(str(config)), tmp_path / 'out/seed-0/init.pth'
    controlled.save_initial_state(cfg, 0, start)
    cfg = controlled.candidate_config(cfg, 'sapa-b', 0, start)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    measured = controlled.train_and_test(cfg, lambda done: None)
    controlled.result_of(cfg).write_text(json.dumps(measured))
    words = '--config', config, '--upsamplers', 'sapa-b'
    call(monkeypatch, TOOL, *words, '--out', tmp_path / 'out')
    heads = 'δ1 | AbsRel | RMS, m | edges, accuracy | edges, completeness'
    table = re.sub(' +', ' ', capsys.readouterr().out)
    assert heads in table and 'mIoU' not in table
    (row,) = figures(tmp_path / 'out')
    assert row['upsampler'] == 'sapa-b'
    (result,) = row['runs']
    assert 0 <= result['d1'] <= 1 and result['abs_rel'] > 0
    assert re.search(
        rf'sapa-b \| {result["d1"]:.3f} \| {result["abs_rel"]:.3f} \| ', table
    )
    assert cv2.imread(str(tmp_path / 'out/comparison.png')) is not None


def test_what_is_measured_of_depth_is_as_the_config_limits_it(scope):
    scope('mmseg')
    cfg = load_config(str(ROOT / CONFIGS['depth']))
    cfg.test_evaluator.update(
        crop_type='garg', max_depth_eval=80, depth_metrics=['d1']
    )
    made = controlled.candidate_config(cfg, 'nearest', 0, Path('init.pth'))
    assert made.test_evaluator == [
        dict(
            type='mmsapa.DepthMetric',
            boundaries=True,
            crop_type='garg',
            max_depth_eval=80,
        )
    ]
    assert made.default_hooks.checkpoint.save_best is None
