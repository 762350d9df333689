"""The tools as a user runs them, on scenes of 64 pixels."""

import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmsapa.demo_data import make_dataset

ROOT = Path(__file__).parents[1]
CONFIGS = dict(
    seg='configs/demo/segformer_mit-b1_sapa-g_demo.py',
    det='configs/demo/faster-rcnn_r50_fpn-sapa-g_demo.py',
)
# Models of the same kind, cut down to what takes a moment.
SMALL = dict(
    seg="""
model = dict(
    backbone=dict(
        embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=16))
""",
    det="""
model = dict(
    backbone=dict(depth=18),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=32)))
val_evaluator = dict(ann_file='{root}/annotations/instances_val2017.json')
test_evaluator = val_evaluator
""",
)
COMMON = """
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}'))
val_dataloader = dict(dataset=dict(data_root='{root}'))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(
    logger=dict(interval=2), checkpoint=dict(interval=2, max_keep_ckpts=3))
"""
ENVIRONMENT = dict(
    os.environ,
    PYTHON=sys.executable,
    PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    # Two threads wait for each other longer than they compute here.
    OMP_NUM_THREADS='1',
)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Path of a small config and its data, per library."""
    folder = tmp_path_factory.mktemp('tools')
    for layout in ('ade', 'coco'):
        make_dataset(str(folder), layout, 8, 2, size=64, nproc=1)
    roots = dict(seg='ade/ADEChallengeData2016', det='coco')
    paths = {}
    for kind, root in roots.items():
        text = (SMALL[kind] + COMMON).replace('{root}', str(folder / root))
        paths[kind] = folder / f'{kind}.py'
        paths[kind].write_text(f'_base_ = {str(ROOT / CONFIGS[kind])!r}{text}')
    return paths


def start(cwd, *command):
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C goes to a whole process group, which must not be pytest's.
        start_new_session=True,
    )


def run(cwd, *command):
    process = start(cwd, *command)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def tool(name, *args):
    return (sys.executable, ROOT / f'tools/{name}.py', *args)


def wait_for_note(process, work_dir):
    """Wait until mmengine has noted a checkpoint and read the note."""
    note = work_dir / 'last_checkpoint'
    while not (note.exists() and note.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return note


@pytest.mark.slow
def test_segmentor_trains_is_killed_resumes_and_is_tested(config, tmp_path):
    work_dir = tmp_path / 'work'
    train = tool('train', config['seg'], '--work-dir', work_dir)
    endless = '--cfg-options', 'train_cfg.max_iters=100000'
    process = start(tmp_path, *train, *endless)
    note = wait_for_note(process, work_dir)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # As if it had been killed while it wrote the next one.
    last = Path(note.read_text())
    step = int(last.stem.split('_')[1])
    for path in work_dir.glob('*.pth'):
        if path != last:
            path.unlink()
    torn = work_dir / f'iter_{step + 2}.pth'
    torn.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    note.write_text(str(torn))

    output = run(
        tmp_path,
        *train,
        *('--resume', '--cfg-options', f'train_cfg.max_iters={step + 2}'),
    )
    assert f'resumed epoch: 0, iter: {step}' in output
    assert 'mIoU: ' in output
    saved = torch.load(torn, weights_only=False)
    assert saved['meta']['iter'] == step + 2

    test = tool('test', config['seg'], torn, '--work-dir', work_dir)
    output = run(
        tmp_path,
        *test,
        '--out',
        tmp_path / 'out',
        '--show-dir',
        tmp_path / 'painted',
    )
    assert 'mIoU: ' in output
    out = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert out == ['ADE_val_00000001.png', 'ADE_val_00000002.png']
    assert len([*(tmp_path / 'painted').rglob('*.png')]) == 2
    assert 'mIoU: ' in run(tmp_path, *test, '--tta')


@pytest.mark.slow
def test_detector_trains_is_stopped_resumes_and_is_tested(config, tmp_path):
    work_dir = tmp_path / 'work'
    train = tool('train', config['det'], '--work-dir', work_dir)
    endless = '--cfg-options', 'train_cfg.max_iters=100000'
    process = start(tmp_path, *train, *endless)
    note = wait_for_note(process, work_dir)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert 'Traceback' not in output
    stopped = output.splitlines()[-1]
    assert stopped.startswith(f'Stopped. To go on: python {train[1]}')
    assert stopped.endswith(f'--work-dir {work_dir} --resume')

    last = note.read_text()
    step = int(Path(last).stem.split('_')[1])
    output = run(
        tmp_path,
        *train,
        *('--resume', last),
        *('--cfg-options', f'train_cfg.max_iters={step + 2}'),
    )
    assert f'resumed epoch: 0, iter: {step}' in output
    assert 'bbox_mAP: ' in output

    final = work_dir / f'iter_{step + 2}.pth'
    test = tool('test', config['det'], final, '--work-dir', work_dir)
    pkl = tmp_path / 'out.pkl'
    painted = tmp_path / 'painted'
    output = run(tmp_path, *test, '--out', pkl, '--show-dir', painted)
    assert 'bbox_mAP: ' in output
    predictions = pickle.loads(pkl.read_bytes())
    assert len(predictions) == 2
    assert 'pred_instances' in predictions[0]
    assert len([*painted.iterdir()]) == 2
    assert 'bbox_mAP: ' in run(tmp_path, *test, '--tta')


@pytest.mark.slow
def test_two_processes_train_and_test_without_a_gpu(config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('nccl takes over where there are GPUs')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ENVIRONMENT['PORT'] = str(port)
    # SyncBN is what most of MMSegmentation's configs have.
    options = 'model.decode_head.norm_cfg.type=SyncBN'
    output = run(
        tmp_path,
        *(ROOT / 'tools/dist_train.sh', config['seg'], 2),
        *('--work-dir', tmp_path, '--cfg-options', options),
    )
    assert 'Iter(train) [4/4]' in output
    assert 'mIoU: ' in output
    output = run(
        tmp_path,
        *(ROOT / 'tools/dist_test.sh', config['seg']),
        *(tmp_path / 'iter_4.pth', 2),
        *('--work-dir', tmp_path, '--cfg-options', options),
    )
    assert 'mIoU: ' in output


def error(monkeypatch, name, *args):
    """Run a tool in this process and return the sentence it ends with."""
    path = str(ROOT / f'tools/{name}.py')
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(path, run_name='__main__')
    return str(caught.value)


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
    assert "must be 'mmseg' or 'mmdet', got 'mmpretrain'" in sentence


def test_a_base_of_a_library_that_is_absent_says_so(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmpose::a/b.py'")
    sentence = error(monkeypatch, 'train', path)
    assert sentence.startswith(f'Cannot read {path}: ')
    assert 'mmpose' in sentence


def test_amp_asks_for_a_gpu(monkeypatch, config):
    if torch.cuda.is_available():
        pytest.skip('there is one')
    sentence = error(monkeypatch, 'train', config['seg'], '--amp')
    assert sentence.startswith('--amp needs a GPU')


def test_auto_scale_lr_asks_for_the_base_batch_size(monkeypatch, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmseg'")
    sentence = error(monkeypatch, 'train', path, '--auto-scale-lr')
    assert 'auto_scale_lr.base_batch_size' in sentence


def test_out_says_what_fits_the_library(monkeypatch, config, tmp_path):
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    for kind, out, wanted in (
        ('seg', 'a.pkl', 'is a folder for PNG files'),
        ('det', 'folder', 'is a file that ends in .pkl'),
    ):
        sentence = error(
            monkeypatch, 'test', config[kind], checkpoint, '--out', out
        )
        assert wanted in sentence and repr(out) in sentence
