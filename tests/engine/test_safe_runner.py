"""Runs that go well, or end in a sentence, and leave users' files alone."""

import multiprocessing
import os
import pickle
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmsapa.engine.runner import build_runner, load_config
from mmsapa.engine.safe_runner import SafeRunner

from ..helpers import (
    COMMON,
    QUICK,
    call,
    dump_config,
    error,
    log_of,
    make_data,
    save_weights,
    write_config,
)

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
ONE = 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'


def test_a_loader_without_workers_needs_no_other_setting():
    loader = SafeRunner.build_dataloader(
        dict(
            dataset=[1, 2, 3],
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            num_workers=0,
            persistent_workers=True,
            prefetch_factor=2,
        )
    )
    assert len(loader) == 3 and loader.num_workers == 0


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Path of a small config per library; its random weights lie beside."""
    folder = tmp_path_factory.mktemp('runs')
    paths = {}
    for kind in ('seg', 'det'):
        root = make_data(folder, kind)
        path = write_config(folder / f'{kind}.py', kind, root, COMMON + QUICK)
        save_weights(path.with_suffix('.pth'), path)
        paths[kind] = path
    return paths


@pytest.fixture
def train(monkeypatch, config, tmp_path):
    """Train one iteration in this process."""

    def train(kind, *options, config=config, flags=()):
        path = config[kind] if isinstance(config, dict) else config
        work_dir = tmp_path / 'work'
        call(
            monkeypatch,
            'train',
            *(path, '--work-dir', work_dir, *flags),
            *('--cfg-options', *ONE, *options),
        )
        assert (work_dir / 'iter_1.pth').exists()
        return work_dir

    return train


@pytest.mark.parametrize(
    'options',
    [
        ('val_dataloader=None', 'val_evaluator=None', 'val_cfg=None'),
        ('val_dataloader=None',),
        ('test_dataloader=None',),
        ('test_evaluator=None', 'test_cfg=None'),
    ],
)
def test_a_training_needs_no_validation_and_no_test(train, options):
    log = log_of(train('seg', *options))
    assert ('Iter(val)' in log) != options[0].startswith('val')


@pytest.mark.skipif(
    sys.platform != 'linux', reason='Linux tells which signals are ignored'
)
def test_loaders_leave_ctrl_c_to_the_main_process(config, tmp_path, scope):
    """The training's too, which are started before it is checked."""
    scope('mmseg')
    options = {'train_dataloader.num_workers': 1}
    cfg = load_config(str(config['seg']), options, str(tmp_path))
    before = {*multiprocessing.active_children()}
    loop = build_runner(cfg).train_loop
    next(loop.dataloader_iterator)
    (worker,) = {*multiprocessing.active_children()} - before
    status = Path(f'/proc/{worker.pid}/status').read_text()
    ignored = int(re.search(r'SigIgn:\s*(\w+)', status)[1], 16)
    assert ignored >> (signal.SIGINT - 1) & 1
    # Or garbage collection, which waits five seconds for the worker.
    loop.dataloader_iterator = None


def test_a_test_without_data_says_so(monkeypatch, config):
    for part in 'test_dataloader', 'test_evaluator':
        sentence = error(
            monkeypatch,
            'test',
            *(config['seg'], config['seg'].with_suffix('.pth')),
            *('--cfg-options', f'{part}=None'),
        )
        assert f'has no {part}' in sentence


# ------------------------------------------------------------------ configs


def test_a_config_in_its_own_work_dir_is_left_alone(
    monkeypatch, config, tmp_path, train
):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    path = work_dir / 'mine.py'
    text = '# my notes\n' + config['seg'].read_text()
    path.write_text(text)
    train('seg', config=path)
    assert path.read_text() == text
    # By another name for the same folder, too.
    (tmp_path / 'link').symlink_to(work_dir)
    call(
        monkeypatch,
        'test',
        *(tmp_path / 'link/mine.py', work_dir / 'iter_1.pth', '--tta'),
        *('--work-dir', work_dir),
    )
    assert path.read_text() == text
    # What was run is written down nevertheless.
    runs = [Config.fromfile(run) for run in work_dir.glob('*/mine.py')]
    assert sorted(run.model.type for run in runs) == [
        'EncoderDecoder',
        'SegTTAModel',
    ]


def test_a_base_in_the_work_dir_is_left_alone(train, config, tmp_path):
    """It is a copy of what was run, but runs differently from then on."""
    first = train('seg')
    text = (first / 'seg.py').read_text()
    path = tmp_path / 'seg.py'
    path.write_text(f"_base_ = '{first / 'seg.py'}'")
    train('seg', 'optim_wrapper.optimizer.lr=0.5', config=path)
    assert (first / 'seg.py').read_text() == text


def test_a_training_writes_its_config_where_no_user_wrote(
    monkeypatch, config, train
):
    written = train('seg') / 'seg.py'
    trained = written.read_text()
    call(
        monkeypatch,
        'test',
        *(config['seg'], written.parent / 'iter_1.pth', '--tta'),
        *('--work-dir', written.parent),
    )
    assert written.read_text() == trained
    # A training replaces what an earlier one wrote, but no changed file.
    train('seg', 'optim_wrapper.optimizer.lr=0.5')
    assert 'lr=0.5' in written.read_text()
    written.write_text('# kept\n' + written.read_text())
    train('seg', 'optim_wrapper.optimizer.lr=0.25')
    assert written.read_text().startswith('# kept\n')
    assert 'lr=0.5' in written.read_text()
    assert 'seg.py is left as it is' in log_of(written.parent)


# -------------------------------------------------------------- checkpoints


def test_metainfo_of_any_depth_resumes_and_tests(monkeypatch, config, train):
    more = 'train_dataloader.dataset.metainfo.more.a.b=1'
    work_dir = train('seg', more)
    saved = work_dir / 'iter_1.pth'
    call(monkeypatch, 'test', config['seg'], saved, '--work-dir', work_dir)
    assert 'Iter(test)' in log_of(work_dir)
    call(
        monkeypatch,
        'train',
        *(config['seg'], '--work-dir', work_dir, '--resume'),
        *('--cfg-options', 'train_cfg.max_iters=2', more),
    )
    assert 'resumed epoch: 0, iter: 1' in log_of(work_dir)


def test_what_is_no_whole_checkpoint_is_named(monkeypatch, config, tmp_path):
    whole = config['seg'].with_suffix('.pth').read_bytes()
    contents = dict(
        torn=whole[: len(whole) // 2], text=b'no weights\n', empty=b''
    )
    for name, content in contents.items():
        path = tmp_path / f'{name}.pth'
        path.write_bytes(content)
        for arguments in (
            ('test', config['seg'], path),
            ('train', config['seg'], '--resume', path),
            ('train', config['seg'], '--cfg-options', f'load_from={path}'),
        ):
            sentence = error(
                monkeypatch, *arguments, '--work-dir', tmp_path / 'work'
            )
            assert sentence.startswith(f'{path}: expected a checkpoint of')
    path = tmp_path / 'other.pth'
    nothing = 'got what holds no weights.'
    # Before 2.6 torch.load reads what it is not told of.
    safe = torch.__version__ >= (2, 6)
    refused = 'asks for what it may not: posix.getcwd' if safe else nothing
    for content, words in (
        (dict(state_dict={}, meta={}), nothing),
        (os.getcwd, refused),
    ):
        torch.save(content, path)
        sentence = error(
            monkeypatch,
            'test',
            *(config['seg'], path, '--work-dir', tmp_path / 'work'),
        )
        assert sentence.endswith(words)
    path.write_bytes(pickle.dumps(1))
    sentence = error(monkeypatch, 'test', config['seg'], path)
    assert sentence.startswith(f'{path}: expected a checkpoint of')


def test_weights_alone_cannot_be_resumed(monkeypatch, config, tmp_path):
    path = config['seg'].with_suffix('.pth')
    sentence = error(
        monkeypatch,
        'train',
        *(config['seg'], '--resume', path, '--work-dir', tmp_path),
    )
    assert str(path) in sentence and 'name it by load_from' in sentence


def test_weights_of_another_model_are_not_tested(
    monkeypatch, config, tmp_path
):
    weights = config['seg'].with_suffix('.pth')
    for option, words in (
        ('model.backbone.num_layers=[1,1,1,2]', 'missing: backbone'),
        ('model.decode_head.upsample_cfg=None', 'left over: decode_head'),
        ('model.decode_head.num_classes=9', 'of another size: decode_head'),
    ):
        sentence = error(
            monkeypatch,
            'test',
            *(config['seg'], weights, '--work-dir', tmp_path),
            *('--cfg-options', option),
        )
        assert f'{weights} does not fit the model: ' in sentence
        assert ' weights fit; ' in sentence and words in sentence


def test_a_training_starts_from_a_part_but_not_from_nothing(
    monkeypatch, config, train
):
    weights = config['seg'].with_suffix('.pth')
    log = log_of(
        train(
            'seg',
            f'load_from={weights}',
            'model.backbone.num_layers=[1,1,1,2]',
        )
    )
    assert f'{weights}: ' in log and 'missing: backbone.layers' in log
    other = config['det'].with_suffix('.pth')
    sentence = error(
        monkeypatch,
        'train',
        *(config['seg'], '--work-dir', weights.parent / 'other'),
        *('--cfg-options', f'load_from={other}'),
    )
    assert f'{other} does not fit the model: 0 of ' in sentence


@pytest.mark.parametrize('kind', ['seg', 'det'])
def test_tta_is_for_data_sets_in_others(monkeypatch, config, tmp_path, kind):
    cfg = Config.fromfile(config[kind])
    dataset = cfg.test_dataloader.dataset
    if kind == 'seg':
        pair = dict(type='ConcatDataset', datasets=[dataset, dataset])
    else:  # its evaluator knows each image once
        pair = dict(type='ConcatDataset', datasets=[dataset])
    cfg.test_dataloader.dataset = pair
    dump_config(cfg, tmp_path / 'nested.py')
    weights = config[kind].with_suffix('.pth')
    call(
        monkeypatch,
        'test',
        *(tmp_path / 'nested.py', weights, '--tta', '--work-dir', tmp_path),
    )
    count = dict(seg=4, det=2)[kind]
    assert f'Iter(test) [{count}/{count}]' in log_of(tmp_path)


def test_out_is_for_the_metrics_that_write(monkeypatch, config, tmp_path):
    cfg = Config.fromfile(config['seg'])
    dump = dict(type='DumpResults', out_file_path=str(tmp_path / 'a.pkl'))
    cfg.test_evaluator = [cfg.test_evaluator, dump]
    dump_config(cfg, tmp_path / 'two.py')
    weights = config['seg'].with_suffix('.pth')
    arguments = 'test', tmp_path / 'two.py', weights, '--work-dir', tmp_path
    call(monkeypatch, *arguments, '--out', tmp_path / 'out')
    assert len([*(tmp_path / 'out').iterdir()]) == 2
    assert (tmp_path / 'a.pkl').exists()
