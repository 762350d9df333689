"""The tools as a user runs them, on scenes of 64 pixels."""

import os
import pickle
import re
import signal
import socket
from pathlib import Path

import pytest
import torch

from mmsapa.engine.cli import LAUNCHERS

from ..helpers import (
    NO_WORKERS,
    ROOT,
    call,
    error,
    finish,
    log_of,
    make_data,
    run,
    start,
    tool,
    wait_for_note,
    write_config,
)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Path of a small config and its data, per library."""
    folder = tmp_path_factory.mktemp('tools')
    return {
        kind: write_config(
            folder / f'{kind}.py', kind, make_data(folder, kind)
        )
        for kind in ('seg', 'det')
    }


@pytest.fixture
def started(config, tmp_path):
    """Start an endless training; return process, work dir and checkpoint."""

    def started(kind):
        process = start(
            tmp_path,
            *tool('train', config[kind], '--work-dir', tmp_path / 'work'),
            *('--cfg-options', 'train_cfg.max_iters=100000'),
        )
        note = wait_for_note(process, tmp_path / 'work')
        return process, tmp_path / 'work', note

    return started


@pytest.fixture
def resume_and_test(monkeypatch, config, tmp_path):
    """Train two more iterations and test, in this process."""

    def resume_and_test(kind, work_dir, step, out, *resume):
        arguments = '--work-dir', work_dir
        call(
            monkeypatch,
            *('train', config[kind], *arguments, '--resume', *resume),
            *('--cfg-options', f'train_cfg.max_iters={step + 2}'),
            *NO_WORKERS,
        )
        log = log_of(work_dir)
        assert f'resumed epoch: 0, iter: {step}' in log
        figure = dict(seg='mIoU: ', det='bbox_mAP: ')[kind]
        assert figure in log
        final = work_dir / f'iter_{step + 2}.pth'
        assert (
            torch.load(final, weights_only=False)['meta']['iter'] == step + 2
        )
        painted = tmp_path / 'painted'
        # The work dir's config says resume=True; training data may be gone.
        for tested, options in (
            (config[kind], ('--out', out, '--show-dir', painted)),
            (work_dir / f'{kind}.py', ('--tta',)),
        ):
            call(
                monkeypatch,
                *('test', tested, final, *arguments, *options),
                # mmengine keeps one of a name in a process.
                *('--cfg-options', 'visualizer.name=test', *NO_WORKERS),
                'train_dataloader.dataset.data_root=gone',
            )
            assert figure in log_of(work_dir)
        assert len([*painted.rglob('*.png'), *painted.rglob('*.jpg')]) == 2

    return resume_and_test


def test_segmentor_trains_is_killed_resumes_and_is_tested(
    started, resume_and_test, tmp_path
):
    process, work_dir, note = started('seg')
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    # As if it had been killed while it wrote the next one.
    last = Path(note.read_text())
    step = int(last.stem.split('_')[1])
    for path in work_dir.glob('*.pth'):
        if path != last:
            path.unlink()
    torn = work_dir / f'iter_{step + 2}.pth'
    torn.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    note.write_text(str(torn))

    resume_and_test('seg', work_dir, step, tmp_path / 'out')
    out = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert out == ['ADE_val_00000001.png', 'ADE_val_00000002.png']


def test_detector_trains_is_stopped_resumes_and_is_tested(
    started, resume_and_test, tmp_path
):
    process, work_dir, note = started('det')
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert 'Traceback' not in output
    stopped = output.splitlines()[-1]
    assert stopped.startswith(f'Stopped. To resume: python {ROOT}/tools/train')
    # With all options, that it may go on as it began.
    assert stopped.endswith(
        f'--work-dir {work_dir} --cfg-options train_cfg.max_iters=100000 '
        '--resume'
    )

    last = note.read_text()
    step = int(Path(last).stem.split('_')[1])
    pkl = tmp_path / 'out.pkl'
    resume_and_test('det', work_dir, step, pkl, last)
    predictions = pickle.loads(pkl.read_bytes())
    assert len(predictions) == 2
    assert 'pred_instances' in predictions[0]


def test_launched_processes_train_and_test_without_a_gpu(config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('nccl takes over where there are GPUs')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    # SyncBN is what most of MMSegmentation's configs have.
    options = (
        *('--work-dir', tmp_path, '--cfg-options'),
        *('model.decode_head.norm_cfg.type=SyncBN', *NO_WORKERS),
    )
    output = run(
        tmp_path,
        *(ROOT / 'tools/dist_train.sh', config['seg'], 2, *options),
        PORT=str(port),
    )
    assert 'Iter(train) [4/4]' in output
    assert 'mIoU: ' in output
    # The validation above gathers from two; here arguments have to arrive.
    words = run(
        tmp_path,
        *(ROOT / 'tools/dist_test.sh', config['seg'], 'no.pth', 3, *options),
        PYTHON='echo',
    ).split()
    assert words[:2] == ['-m', 'torch.distributed.run']
    assert '--nproc_per_node=3' in words
    expected = ROOT / 'tools/test.py', config['seg'], 'no.pth', '--launcher'
    tail = [*map(str, expected), 'pytorch', *map(str, options)]
    assert words[-len(tail) :] == tail


def test_missing_files_are_named(monkeypatch, config, tmp_path):
    assert error(monkeypatch, 'train', 'no.py') == (
        'There is no config file no.py.'
    )
    assert error(monkeypatch, 'test', config['seg'], 'no.pth') == (
        'There is no checkpoint no.pth.'
    )
    assert 'no checkpoint no.pth' in error(
        monkeypatch, 'train', config['seg'], '--resume', 'no.pth'
    )
    assert 'no checkpoint no.pth' in error(
        monkeypatch,
        'train',
        config['seg'],
        '--cfg-options',
        'load_from=no.pth',
    )
    option = f'train_dataloader.dataset.data_root={tmp_path}'
    sentence = error(
        monkeypatch, 'train', config['det'], '--cfg-options', option
    )
    assert f'{tmp_path}/train2017/, which does not exist' in sentence
    assert 'mmdetection.readthedocs.io' in sentence


def test_a_config_of_neither_library_is_refused(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmpretrain'")
    sentence = error(monkeypatch, 'train', path)
    assert "of a mattor, 'mmsapa', got 'mmpretrain', and" in sentence


def test_a_base_of_a_library_that_is_absent_says_so(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmpose::a/b.py'")
    sentence = error(monkeypatch, 'train', path)
    assert sentence.startswith(f'Cannot read {path}: ')
    assert 'mmpose' in sentence


def test_amp_trains_on_a_cpu_but_for_rois(monkeypatch, config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('trains on the GPU')
    options = '--amp', '--work-dir', tmp_path, '--cfg-options', *NO_WORKERS
    call(
        monkeypatch,
        *('train', config['seg'], *options),
        'train_cfg.max_iters=1',
    )
    assert 'mmsapa.CPUAmpOptimWrapper' in (tmp_path / 'seg.py').read_text()
    assert 'mIoU: ' in log_of(tmp_path)
    sentence = error(monkeypatch, 'train', config['det'], *options)
    assert sentence.startswith("--amp: MMCV's RoIAlign")


def test_auto_scale_lr_asks_for_the_base_batch_size(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmseg'")
    sentence = error(monkeypatch, 'train', path, '--auto-scale-lr')
    assert 'auto_scale_lr.base_batch_size' in sentence


def test_out_says_what_fits_the_library(monkeypatch, config, tmp_path):
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    for kind, out, wanted in (
        ('seg', 'a.pkl', 'mattor is a folder for PNG files'),
        ('det', 'folder', 'is a file that ends in .pkl'),
    ):
        sentence = error(
            monkeypatch, 'test', config[kind], checkpoint, '--out', out
        )
        assert wanted in sentence and repr(out) in sentence


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('config.py', 'model = dict(\n', 'SyntaxError'),
        ('config.py', 'model = nothing', "name 'nothing' is not defined"),
        ('config.txt', 'model', 'Only py/yml/yaml/json type'),
        ('config.json', '{"model": ', 'JSONDecodeError'),
        ('config.yaml', 'model: [', 'ParserError'),
        ('config.py', 'with open("x") as f:\n    pass', 'read_base'),
        ('config.py', 'import nowhere\nx = nowhere.y', 'default_scope must'),
    ],
)
def test_a_config_that_cannot_be_read_is_named(
    monkeypatch, tmp_path, name, text, words
):
    path = tmp_path / name
    path.write_text(text)
    for arguments in ('train', path), ('test', path, 'no.pth'):
        sentence = error(monkeypatch, *arguments)
        assert str(path) in sentence and words in sentence
        assert '\n' not in sentence


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('train_cfg.max_iters', 'expected KEY=VALUE such as'),
        ('=3', 'expected KEY=VALUE such as'),
        ('model.a=[(1,2]', 'Imbalanced brackets'),
    ],
)
def test_options_that_cannot_be_parsed_are_named(
    monkeypatch, capsys, config, option, words
):
    arguments = 'train', config['seg'], '--cfg-options', option
    assert error(monkeypatch, *arguments) == '2'
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('model.decode_head.num_classes.more=3', 'num_classes'),
        ('tta_pipeline.9.type=Resize', 'cannot put tta_pipeline.9.type'),
        ('train_dataloder.batch_size=2', 'is train_dataloader meant?'),
    ],
)
def test_options_that_do_not_fit_are_named(monkeypatch, config, option, words):
    sentence = error(
        monkeypatch, 'train', config['seg'], '--cfg-options', option
    )
    assert sentence.startswith('--cfg-options: ') and words in sentence


def test_a_work_dir_that_cannot_be_made_is_named(
    monkeypatch, config, tmp_path
):
    file = tmp_path / 'file'
    file.touch()
    for work_dir in file, file / 'deep/er':
        sentence = error(
            monkeypatch, 'train', config['seg'], '--work-dir', work_dir
        )
        assert f'{work_dir} cannot be made, for {file} is a file' in sentence


@pytest.mark.parametrize(
    ('launcher', 'words'),
    [
        ('pytorch', 'RANK, WORLD_SIZE, .* torchrun'),
        ('slurm', 'SLURM_PROCID, .* srun'),
        ('mpi', 'OMPI_COMM_WORLD_RANK, .* mpirun'),
    ],
)
def test_a_launcher_that_was_not_there_is_named(
    monkeypatch, config, launcher, words
):
    for arguments in ('train', config['seg']), ('test', config['seg'], 'no'):
        sentence = error(monkeypatch, *arguments, '--launcher', launcher)
        assert re.search(words, sentence)


@pytest.fixture
def empty(tmp_path):
    """A checkpoint that is looked at after all else."""
    (tmp_path / 'a.pth').touch()
    return tmp_path / 'a.pth'


def test_pictures_need_what_draws_them(monkeypatch, config, empty):
    for option in 'visualizer=None', 'default_hooks.visualization=None':
        sentence = error(
            monkeypatch,
            *('test', config['seg'], empty, '--show-dir', 'pictures'),
            *('--cfg-options', option),
        )
        assert '--show and --show-dir need a visualization hook' in sentence


def test_one_process_draws(monkeypatch, config, empty):
    for name in LAUNCHERS['pytorch']:
        monkeypatch.setenv(name, '0')
    words = 'test', config['seg'], empty, '--show-dir', 'pictures'
    sentence = error(monkeypatch, *words, '--launcher', 'pytorch')
    assert 'expected one process, which draws all images' in sentence


def test_out_needs_a_metric_that_writes(monkeypatch, config, empty):
    sentence = error(
        monkeypatch,
        *('test', config['seg'], empty, '--out', 'folder'),
        *('--cfg-options', 'test_evaluator.type=mmdet.CocoPanopticMetric'),
    )
    assert 'or mmsapa.MattingMetric, got CocoPanopticMetric.' in sentence


def test_tta_is_for_boxes(monkeypatch, config, empty):
    masks = ROOT / 'configs/mask_rcnn/mask-rcnn_r50_fpn-sapa-g_1x_coco.py'
    sentence = error(monkeypatch, 'test', masks, empty, '--tta')
    assert 'merges boxes only, but the model has a mask_head' in sentence
    arguments = 'test', config['det'], empty, '--tta', '--cfg-options'
    sentence = error(
        monkeypatch, *arguments, 'test_evaluator.metric=[bbox,segm]'
    )
    assert 'merges boxes only, but the test measures masks' in sentence
