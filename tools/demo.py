"""Run the main job on a small scale: data, training, test, picture.

Everything is found again when it is run a second time: data that is made,
training that was interrupted, a model that is trained.
"""

import argparse
import os
import os.path as osp
import subprocess
import sys
import time
from itertools import islice
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402
import mmengine  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.patches import Patch, Rectangle  # noqa: E402

from mmsapa.demo_data import make_dataset  # noqa: E402
from mmsapa.runner import (  # noqa: E402
    argument_parser,
    build_runner,
    command_line,
    interruptible,
    load_config,
)

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
DATA = 'data/demo'
NUM_TRAIN, NUM_VAL = 1500, 100


class Job(NamedTuple):
    """What differs between segmentation and detection."""

    title: str
    config: str
    layout: str
    size: int
    metric: str
    key: str
    duration: str


JOBS = dict(
    seg=Job(
        'SegFormer-B1 + SAPA-G',
        'configs/demo/segformer_mit-b1_sapa-g_demo.py',
        'ade',
        128,
        'mIoU',
        'mIoU',
        'eight minutes',
    ),
    det=Job(
        'Faster R-CNN R50 + SAPA-G',
        'configs/demo/faster-rcnn_r50_fpn-sapa-g_demo.py',
        'coco',
        96,
        'AP',
        'coco/bbox_mAP',
        'fifteen minutes',
    ),
)


def config_of(job):
    return load_config(argument_parser('').parse_args([job.config]))


def evaluate(job, checkpoint):
    """Test a model; without a checkpoint, as it was initialised.

    Returns:
        tuple: The metric, and the runner for more predictions.
    """
    cfg = config_of(job)
    cfg.work_dir = osp.join(cfg.work_dir, 'test')
    cfg.load_from = checkpoint
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    if checkpoint is None:
        runner.model.init_weights()
    return float(runner.test()[job.key]), runner


def train(job):
    """Train in a process of its own, from where it was left."""
    command = ['tools/train.py', job.config, '--resume']
    print('  ' + command_line(*command), flush=True)
    process = subprocess.Popen([sys.executable, *command])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The process got the signal too, and says farewell first.
        process.wait()
        raise
    if code:
        sys.exit(code)


@torch.no_grad()
def draw(job, runner, metrics, path, count):
    """Draw image, truth and prediction of some validation images."""
    meta = runner.test_dataloader.dataset.metainfo
    colours = [to_hex(np.array(c) / 255) for c in meta['palette']]
    rows = (count + 1) // 2
    fig, axes = plt.subplots(
        rows, 6, figsize=(12, 2 * rows + 1.0), squeeze=False, dpi=150
    )
    for i, batch in enumerate(islice(runner.test_dataloader, count)):
        sample = runner.model.test_step(batch)[0].cpu()
        image = batch['inputs'][0].permute(1, 2, 0).numpy()[..., ::-1]
        row = axes[i % rows, i // rows * 3 : i // rows * 3 + 3]
        row[0].imshow(image)
        if 'pred_sem_seg' in sample:
            truth = sample.gt_sem_seg.data[0].numpy()
            _show_labels(row[1], truth, meta['palette'])
            guess = sample.pred_sem_seg.data[0].numpy()
            _show_labels(row[2], guess, meta['palette'])
        else:
            for axis, boxes in zip(
                row[1:], (sample.gt_instances, sample.pred_instances)
            ):
                _show_boxes(axis, image, boxes, colours)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for column, name in enumerate(('image', 'truth', 'prediction') * 2):
        axes[0, column].set_title(name, fontsize=10)
    fig.suptitle(
        f'{job.title}: {job.metric} {_number(job, metrics["trained"])} after '
        f'a short training from scratch, {_number(job, metrics["untrained"])}'
        ' before',
        fontsize=12,
    )
    handles = [
        Patch(facecolor=colour, label=name)
        for colour, name in zip(colours, meta['classes'])
    ]
    if job.layout == 'ade':
        handles.append(
            Patch(facecolor='white', edgecolor='0.7', label='not counted')
        )
    fig.legend(
        handles=handles,
        loc='lower center',
        ncols=len(handles),
        frameon=False,
        fontsize=10,
    )
    fig.tight_layout(rect=(0, 0.04, 1, 1), w_pad=0.3, h_pad=0.3)
    fig.savefig(path)
    plt.close(fig)


def _show_labels(axis, labels, palette):
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = palette
    axis.imshow(table[labels], interpolation='nearest')


def _show_boxes(axis, image, instances, colours):
    # Paler, so that the boxes stand out.
    axis.imshow((image * 0.5 + 127).astype(np.uint8))
    if 'scores' in instances:
        instances = instances[instances.scores > 0.4]
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    for (x0, y0, x1, y1), label in zip(
        boxes.tolist(), instances.labels.tolist()
    ):
        for colour, width in (('black', 2.4), (colours[label], 1.5)):
            axis.add_patch(
                Rectangle(
                    (x0 - 0.5, y0 - 0.5),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    edgecolor=colour,
                    linewidth=width,
                )
            )


def _number(job, value):
    return f'{value:.1f}' if job.layout == 'ade' else f'{value:.3f}'


def run(job):
    cfg = config_of(job)
    final = osp.join(cfg.work_dir, f'iter_{cfg.train_cfg.max_iters}.pth')
    results = osp.join(cfg.work_dir, 'results.json')
    picture = osp.join(cfg.work_dir, 'predictions.png')

    print(f'== {job.title} on scenes in {DATA}/{job.layout}', flush=True)
    start = time.time()
    if make_dataset(DATA, job.layout, NUM_TRAIN, NUM_VAL, job.size):
        print(f'  drawn in {time.time() - start:.0f} s')
    else:
        print('  drawn already')

    metrics = mmengine.load(results) if osp.isfile(results) else {}
    if 'untrained' not in metrics:
        print(f'== Testing the untrained model on {NUM_VAL} images')
        metrics['untrained'], _ = evaluate(job, None)
        mmengine.mkdir_or_exist(cfg.work_dir)
        mmengine.dump(metrics, results)

    trained_already = osp.isfile(final)
    if not trained_already:
        print(
            f'== Training; about {job.duration} on two cores, Ctrl-C '
            'and a second run go on where it was'
        )
        start = time.time()
        train(job)
        metrics.pop('trained', None)
        metrics['train_seconds'] = round(time.time() - start)
        mmengine.dump(metrics, results)
    if 'trained' not in metrics or not osp.isfile(picture):
        print(f'== Testing the trained model on {NUM_VAL} images')
        metrics['trained'], runner = evaluate(job, final)
        draw(job, runner, metrics, picture, count=8)
        mmengine.dump(metrics, results)
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
    print(
        f'\n{job.title}, {cfg.train_cfg.max_iters} iterations from scratch\n'
        f'  {job.metric} untrained  {_number(job, metrics["untrained"])}\n'
        f'  {job.metric} trained    {_number(job, metrics["trained"])}\n'
        f'  checkpoint      {final}\n'
        f'  log             {osp.join(cfg.work_dir, logs[-1])}\n'
        f'  picture         {picture}'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('job', choices=JOBS)
    args = parser.parse_args()
    os.chdir(ROOT)
    again = command_line('tools/demo.py', args.job)
    with interruptible(f'Stopped. To go on: {again}'):
        run(JOBS[args.job])


if __name__ == '__main__':
    main()
