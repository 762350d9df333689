"""Tiny models and data, and the tools run on them as a user runs them."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from mmsapa.datasets.demo_data import make_dataset
from mmsapa.engine.config import library_of
from mmsapa.engine.controlled_comparison import images_of
from mmsapa.evaluation.paired import mean_figure

ROOT = Path(__file__).parents[1]
CONFIGS = dict(
    seg='configs/demo/segformer_mit-b1_sapa-g_demo.py',
    det='configs/demo/faster-rcnn_r50_fpn-sapa-g_demo.py',
    depth='configs/demo/bts_r18_sapa-g_demo.py',
    matting='configs/demo/a2u-matting_r34_sapa-g_demo.py',
)
# Models of the same kind that take a moment.
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
    depth="""
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(stem_channels=8, base_channels=8),
    decode_head=dict(in_channels=[8, 8, 16, 32, 64], num_features=16))
""",
    matting="""
model = dict(
    backbone=dict(depth=18, base_channels=8), decode_head=dict(channels=8))
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
# For tests that run a tool in this process: without data loaders' processes.
NO_WORKERS = tuple(
    f'{loader}_dataloader.{setting}'
    for loader in ('train', 'val', 'test')
    for setting in ('num_workers=0', 'persistent_workers=False')
)
QUICK = ''.join(
    f"""
{name}_dataloader.update(num_workers=0, persistent_workers=False)"""
    for name in ('train', 'val')
)
ENVIRONMENT = dict(
    os.environ,
    PYTHON=sys.executable,
    PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    # Two threads wait for each other longer than they compute here.
    OMP_NUM_THREADS='1',
)
# The longest that a test waits for a process, in seconds.
PATIENCE = 900


def make_data(folder, kind, train=8, val=2):
    """Draw scenes of 64 pixels; return the ``data_root`` of a config."""
    layout, root = dict(
        seg=('ade', 'ade/ADEChallengeData2016'),
        det=('coco', 'coco'),
        depth=('nyu', 'nyu'),
        matting=('comp1k', 'comp1k'),
    )[kind]
    make_dataset(str(folder), layout, train, val, size=64, nproc=1)
    return Path(folder) / root


def write_config(path, kind, root, more=COMMON):
    """Write the config of a small model; {root} in ``more`` is the data's."""
    text = (SMALL[kind] + more).replace('{root}', str(root))
    path.write_text(f'_base_ = {str(ROOT / CONFIGS[kind])!r}{text}')
    return path


def dump_config(cfg, path):
    """Write a config without yapf's layout, which takes longer than a run."""
    settings = cfg.to_dict().items()
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in settings))


def save_weights(path, config, **meta):
    """Write a checkpoint with random weights of a config's model."""
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(library_of(cfg)):
        init_default_scope(library_of(cfg))
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


def tool(name, *args):
    """Spell out the command line of one of our tools."""
    return (sys.executable, ROOT / f'tools/{name}.py', *args)


def start(cwd, *command, **environment):
    """Start a program that Ctrl-C can stop, with more in its environment."""
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C goes to a whole process group, which must not be pytest's.
        start_new_session=True,
    )


def finish(process):
    """Wait for the end of a program, and not longer than PATIENCE."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f'no end in {PATIENCE} s: {process.communicate()[0]}')


def run(cwd, *command, **environment):
    """Run a program that must succeed; return its output."""
    process = start(cwd, *command, **environment)
    output = finish(process)
    assert process.returncode == 0, output
    return output


def wait_for_note(process, work_dir):
    """Wait until mmengine has written the name of a checkpoint."""
    note = work_dir / 'last_checkpoint'
    deadline = time.monotonic() + PATIENCE
    while not (note.exists() and note.read_text()):
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f'no checkpoint: {process.communicate()[0]}')
        time.sleep(0.05)
    return note


def call(monkeypatch, name, *args):
    """Run a tool in this process, from an empty folder."""
    path = str(ROOT / f'tools/{name}.py')
    # mmengine tells the runs of a process apart by the second they start in.
    last = MMLogger.get_current_instance().instance_name
    while last.endswith(time.strftime('%Y%m%d_%H%M%S')):
        time.sleep(0.05)
    with TemporaryDirectory() as folder, monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')


def log_of(work_dir):
    """Return the log of the last run in a work dir."""
    return max(work_dir.glob('*/*.log')).read_text()


def error(monkeypatch, name, *args):
    """Run a tool in this process; return the message it ends with."""
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, name, *args)
    return str(caught.value)


def figures(out):
    """All figures of a comparison, but time and memory."""
    rows = json.loads((out / 'comparison.json').read_text())['rows']
    for row in rows:
        for measured in (row, *row['runs']):
            for key in measured.keys() & {'seconds', 'peak_bytes'}:
                assert np.min(measured.pop(key)) > 0
    return rows


def check_images(cfg, result, *names):
    """What is kept of images gives the figures of all."""
    with np.load(images_of(cfg)) as images:
        assert {*names} <= images.keys() <= {*result, 'images', 'groups'}
        assert all(images['images'])  # their names
        for name in names:
            expected = pytest.approx(result[name], abs=0.006, nan_ok=True)
            assert mean_figure(images[name]) == expected
