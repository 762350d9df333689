"""Run the main job on a small scale: data, training, test, picture.

A second run reuses the data, resumes an interrupted training and keeps a
trained model.
"""

import argparse
import os
import os.path as osp
import subprocess
import sys
import time
from typing import NamedTuple

import mmengine
from mmengine.registry import DATASETS, METRICS
from mmengine.structures import PixelData

from mmsapa.datasets.demo_data import make_dataset
from mmsapa.engine.cli import command_line, interruptible
from mmsapa.engine.runner import build_runner, load_config

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
DATA = 'data/demo'
COMPARE = 'tools/analysis_tools/compare_models.py'


class Job(NamedTuple):
    """What differs between segmentation, detection, depth and matting."""

    title: str
    config: str
    layout: str
    # The key of each figure by its name, and how it is printed.
    metrics: dict
    form: str
    duration: str
    # What figures are of, in the order they are printed in.
    stages: tuple = ('untrained', 'trained')


JOBS = dict(
    seg=Job(
        'SegFormer-B1 + SAPA-G',
        'configs/demo/segformer_mit-b1_sapa-g_demo.py',
        'ade',
        {'mIoU': 'mIoU'},
        '.1f',
        'three to eight minutes',
    ),
    det=Job(
        'Faster R-CNN R50 + SAPA-G',
        'configs/demo/faster-rcnn_r50_fpn-sapa-g_demo.py',
        'coco',
        {'AP': 'coco/bbox_mAP'},
        '.3f',
        'ten to fifteen minutes',
    ),
    depth=Job(
        'BTS R18 + SAPA-G',
        'configs/demo/bts_r18_sapa-g_demo.py',
        'nyu',
        {'δ1': 'd1', 'RMS': 'rmse'},
        '.3f',
        'five to eight minutes',
    ),
    matting=Job(
        'A2U matting + SAPA-G',
        'configs/demo/a2u-matting_r34_sapa-g_demo.py',
        'comp1k',
        {'SAD': 'SAD', 'Grad': 'Grad'},
        '.3f',
        'about seven minutes',
        ('trimap', 'untrained', 'trained'),
    ),
)


def figures(job, stage):
    """The names of a job's figures at one of its stages."""
    return {f'{name} {stage}': key for name, key in job.metrics.items()}


def evaluate(job, stage, checkpoint=None):
    """Test a model; without a checkpoint, as initialized."""
    cfg = load_config(job.config)
    cfg.work_dir = osp.join(cfg.work_dir, 'test')
    cfg.load_from = checkpoint
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    if checkpoint is None:
        runner.model.init_weights()
    return pick(job, stage, runner.test())


def evaluate_trimaps(job):
    """Test the trivial answer: trimaps taken for mattes, gray and all."""
    cfg = load_config(job.config)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    metric = METRICS.build(cfg.test_evaluator)
    for data in dataset:
        sample = data['data_samples']
        sample.pred_alpha = PixelData(data=sample.trimap.data / 255)
        metric.process({}, [sample.to_dict()])
    return pick(job, 'trimap', metric.evaluate(len(dataset)))


def pick(job, stage, found):
    """Choose a job's figures among those that were measured."""
    return {
        name: float(found[key]) for name, key in figures(job, stage).items()
    }


def call(*command):
    """Print a tool's command and run it in its own process."""
    print('  ' + command_line(*command), flush=True)
    process = subprocess.Popen([sys.executable, *command])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The process got the signal too, and prints its message first.
        process.wait()
        raise
    if code:
        sys.exit(code)


def run(job):
    cfg = load_config(job.config)
    final = osp.join(cfg.work_dir, f'iter_{cfg.train_cfg.max_iters}.pth')
    results = osp.join(cfg.work_dir, 'results.json')
    picture = osp.join(cfg.work_dir, 'predictions.png')

    print(f'== {job.title} on scenes in {DATA}/{job.layout}', flush=True)
    start = time.time()
    try:
        drawn = make_dataset(DATA, job.layout)
    except FileExistsError as error:
        sys.exit(str(error))
    if drawn:
        print(f'  drawn in {time.time() - start:.0f} s')
    else:
        print('  drawn already')

    metrics = mmengine.load(results) if osp.isfile(results) else {}
    if not figures(job, 'untrained').keys() <= metrics.keys():
        print('== Testing the untrained model')
        metrics |= evaluate(job, 'untrained')
        if 'trimap' in job.stages:
            metrics |= evaluate_trimaps(job)
        mmengine.mkdir_or_exist(cfg.work_dir)
        mmengine.dump(metrics, results)

    trained_already = osp.isfile(final)
    if not trained_already:
        print(
            f'== Training; about {job.duration} on two cores; Ctrl-C stops it '
            'and a second run resumes it'
        )
        start = time.time()
        call('tools/train.py', job.config, '--resume')
        for name in figures(job, 'trained'):
            metrics.pop(name, None)
        metrics['train_seconds'] = round(time.time() - start)
        mmengine.dump(metrics, results)
    tested_already = figures(job, 'trained').keys() <= metrics.keys()
    if not (tested_already and osp.isfile(picture)):
        print('== Testing the trained model')
        metrics |= evaluate(job, 'trained', final)
        mmengine.dump(metrics, results)
        call(COMPARE, '--model', job.config, final, '--out', picture)
    elif trained_already:
        print(
            '== Trained and tested already; to start over, remove '
            f'{cfg.work_dir}'
        )

    logs = sorted(
        path
        for path in mmengine.scandir(cfg.work_dir, '.log', recursive=True)
        if not path.startswith('test')
    )
    rows = {
        name: format(metrics[name], job.form)
        for stage in job.stages
        for name in figures(job, stage)
    }
    rows |= dict(
        checkpoint=final,
        log=osp.join(cfg.work_dir, logs[-1]),
        picture=picture,
    )
    print(f'\n{job.title}, {cfg.train_cfg.max_iters} iterations from scratch')
    for name, value in rows.items():
        print(f'  {name:15} {value}')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('job', choices=JOBS)
    args = parser.parse_args()
    os.chdir(ROOT)
    again = command_line('tools/demo.py', args.job)
    with interruptible(f'Stopped. To resume: {again}'):
        run(JOBS[args.job])


if __name__ == '__main__':
    main()
