"""The controlled comparison as a user runs it, on scenes of 64 pixels."""

import json
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ..helpers import (
    call,
    check_images,
    error,
    figures,
    make_data,
    write_config,
)
from ..pure_python import write_pure_python

pytest.importorskip('mmseg')

from mmsapa.engine import controlled_comparison as controlled  # noqa: E402
from mmsapa.engine.checkpoint import (  # noqa: E402
    CheckpointError,
    read_checkpoint,
)
from mmsapa.engine.config import ConfigError  # noqa: E402
from mmsapa.engine.runner import load_config  # noqa: E402

TOOL = 'analysis_tools/compare_upsamplers'
ITERATIONS = 4
# With dropout, since a resumed training must draw the same.
MORE = """
model['backbone'].update(drop_path_rate=0.2)
model['decode_head'].update(dropout_ratio=0.2)
here = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, dataset=dict(data_root='{root}'), **here)
test_dataloader = dict(dataset=dict(data_root='{root}'), **here)
val_dataloader = dict(
    **here,
    dataset=dict(
        data_root='{root}',
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training')))
train_cfg = dict(max_iters=4)
default_hooks = dict(
    logger=dict(interval=2), checkpoint=dict(interval=2))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('comparison')
    root = make_data(folder, 'seg', 8, 3)
    return write_config(folder / 'config.py', 'seg', root, MORE)


class Stopped(Exception):
    """Ends a training."""


def stop_after(iterations):
    """Make what stops a training, as a kill would."""

    def tell(done):
        if done == iterations:
            raise Stopped

    return tell


@pytest.fixture
def candidate(config, scope):
    """Make a candidate of seed 0 in the folder of a comparison."""
    scope('mmseg')

    def candidate(out, name, iterations=ITERATIONS, **more):
        cfg, start = load_config(str(config)), out / 'seed-0/init.pth'
        cfg.train_cfg.max_iters = iterations
        controlled.save_initial_state(cfg, 0, start)
        return controlled.candidate_config(cfg, name, 0, start, **more)

    return candidate


def train(cfg, tell=lambda done: None):
    """Train and test in this process, and keep the result."""
    result = controlled.train_and_test(cfg, tell)
    controlled.result_of(cfg).write_text(json.dumps(result))
    return result


def weights_of(cfg):
    path = f'{cfg.work_dir}/iter_{ITERATIONS}.pth'
    return read_checkpoint(path)['state_dict']


def test_a_comparison_ends_the_same_after_a_kill(
    config, candidate, tmp_path, monkeypatch, capsys, briefly
):
    whole, killed, bilinear = (
        candidate(tmp_path / folder, name)
        for folder, name in (
            ('whole', 'sapa-g'),
            ('out', 'sapa-g'),
            ('out', 'bilinear'),
        )
    )
    expected = train(whole)
    train(bilinear)
    with pytest.raises(Stopped):
        train(killed, stop_after(3))
    # What a kill may leave of files that were being written.
    out, work_dir = tmp_path / 'out', Path(killed.work_dir)
    (saved,) = work_dir.glob('*.pth')
    assert saved.name == 'iter_2.pth'
    torn = work_dir / 'iter_4.pth'
    torn.write_bytes(saved.read_bytes()[:-100])
    (work_dir / 'last_checkpoint').write_text(str(torn))
    for path in (
        out / 'config.json',
        *(controlled.result_of(killed), controlled.images_of(killed)),
    ):
        Path(f'{path}.partial').write_text('{"mIo')
    (out / 'seed-0/nearest').touch()  # no folder, so that its training fails

    words = '--config', config, '--out', out, '--baseline', 'sapa-g'
    words = *words, '--upsamplers', 'bilinear', 'sapa-g'
    message = error(monkeypatch, TOOL, *words, 'nearest')
    assert re.search('1 of 3 trainings failed.*seed-0/nearest', message)
    log = (work_dir / 'run.log').read_text()
    assert re.search(r'resumed epoch: 0, iter: 2', log)
    # All others are finished, and are not trained again.
    bilinear_log = Path(bilinear.work_dir, 'run.log')
    assert not bilinear_log.exists()
    call(monkeypatch, TOOL, *words)
    assert (work_dir / 'run.log').read_text() == log
    theirs, ours = map(weights_of, (killed, whole))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)

    page = (out / 'comparison.md').read_text()
    assert page in capsys.readouterr().out
    assert cv2.imread(str(out / 'comparison.png')) is not None
    other, row = figures(out)
    assert (other['upsampler'], row['upsampler']) == ('bilinear', 'sapa-g')
    for key in ('params', 'flops'):
        assert row[key] > other[key]
    (run,) = row['runs']
    classes = run.pop('classes')
    del expected['peak_bytes']
    assert run == dict(expected, seed=0)
    for key, found in classes.items():
        known = [figure for figure in found if figure is not None]
        assert np.mean(known) == pytest.approx(run[key], abs=0.01)
    assert '\n| boundary IoU ' in page and '\n| spiral ' in page
    assert 'paired' not in row
    paired = other['paired']['mIoU']
    gain = other['runs'][0]['mIoU'] - run['mIoU']
    assert paired['difference'] == pytest.approx(gain, abs=0.01)
    assert paired['low'] <= paired['high']
    assert f'{paired["difference"]:+.2f} (' in page

    # A folder is one config's.
    options = '--cfg-options', 'optim_wrapper.optimizer.lr=0.1'
    message = error(monkeypatch, TOOL, *words, *options)
    assert 'out holds a comparison with another config: expected' in message


def test_a_single_class_has_no_iou_that_could_be_compared(config, scope):
    scope('mmseg')
    cfg = load_config(str(config))
    cfg.model.decode_head.num_classes = 1
    with pytest.raises(ConfigError, match='expected two classes or more'):
        controlled.candidate_config(cfg, 'nearest', 0, Path('init.pth'))


def test_what_older_versions_trained_is_tested_and_not_trained(
    candidate, tmp_path
):
    cfg = candidate(tmp_path, 'nearest', 1)
    train(cfg)
    # Their results had no figures of images, their checkpoints no memory.
    controlled.images_of(cfg).unlink()
    controlled.result_of(cfg).write_text('{"mIoU": 0.1, "peak_bytes": 5}')
    path = f'{cfg.work_dir}/iter_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['peak_bytes']
    torch.save(checkpoint, path)
    assert not controlled.is_finished(cfg)
    done = []
    result = train(cfg, done.append)
    assert done == [1]
    assert result['peak_bytes'] == 5 and result['mIoU'] != 0.1
    check_images(cfg, result, 'mIoU', 'mBIoU')
    assert controlled.is_finished(cfg)


def test_each_upsampler_has_the_rate_that_is_best_in_validation(
    config, candidate, tmp_path, monkeypatch, capsys, briefly
):
    # Trained once; what is measured of validation images is made up.
    out, first = tmp_path / 'out', None
    for name, rate, figure in (
        *(('bilinear', 0.002, 60), ('bilinear', 0.001, 50)),
        *(('nearest', 0.002, 40), ('nearest', 0.001, 50)),
    ):
        cfg = candidate(out, name, 1, rate=rate, split='val')
        assert cfg.optim_wrapper.optimizer.lr == rate
        if first:
            shutil.copytree(first, cfg.work_dir)
        else:
            train(cfg)
            first = cfg.work_dir
            with np.load(controlled.images_of(cfg)) as images:
                assert len(images['mIoU']) == 8
        made_up = dict(mIoU=figure, peak_bytes=1)
        controlled.result_of(cfg).write_text(json.dumps(made_up))
    assert not [*out.rglob('result.*')]  # nothing was tested
    for name, rate in (('bilinear', 0.002), ('nearest', 0.001)):
        cfg, done = candidate(out, name, 1, rate=rate), []
        check_images(cfg, train(cfg, done.append), 'mIoU', 'mBIoU')
        assert done == [1]  # nothing was trained
    call(
        monkeypatch,
        TOOL,
        *('--config', config, '--out', out),
        *('--upsamplers', 'bilinear', 'nearest', '--baseline', 'nearest'),
        *('--lrs', '2e-3', '1e-3'),
        *('--cfg-options', 'train_cfg.max_iters=1'),
    )
    assert not [*out.rglob('run.log')]  # all was there
    page = capsys.readouterr().out
    assert 'that of 0.002, 0.001 with the best mIoU of the valid' in page
    assert re.search(r'\| bilinear .* 0\.002 \|', page)
    assert re.search(r'\| nearest .* 0\.001 \|', page)
    assert 'Paired differences from nearest' in page
    rows = figures(out)
    assert [row['rate'] for row in rows] == [0.002, 0.001]
    assert 'paired' in rows[0] and 'paired' not in rows[1]


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
    """Without default hooks, too."""
    scope('mmseg')
    cfg = Config.fromfile(config)
    for name in ('train', 'test'):
        loader = cfg[f'{name}_dataloader']
        repeated = dict(
            type='RepeatDataset', times=2, dataset=loader.dataset.to_dict()
        )
        loader.dataset = dict(type='ConcatDataset', datasets=[repeated])
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
    check_images(cfg, result, 'mIoU', 'mBIoU')
    assert done == [0, 1, 2]
    assert 0 < result['mBIoU'] < 100
    assert result['peak_bytes'] > 1e8
