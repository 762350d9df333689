"""Train a segmentor of MMSegmentation or a detector of MMDetection."""

import sys

from mmengine.device import get_device

from mmsapa.engine.checkpoint import find_last_checkpoint
from mmsapa.engine.config import type_name
from mmsapa.engine.runner import (
    argument_parser,
    build_runner,
    check_checkpoint,
    check_data,
    command_line,
    interruptible,
    load_config,
)


def parse_args():
    parser = argument_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the last one in the work '
        'dir if none is named',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the batch size, from the config's "
        'auto_scale_lr.base_batch_size',
    )
    return parser.parse_args()


def use_amp(cfg):
    """Swap the optimizer wrapper for its mixed precision twin."""
    if get_device() in ('cpu', 'mps'):
        sys.exit(
            "--amp needs a GPU: mmengine's AmpOptimWrapper refuses to run "
            f'on {get_device()}. Leave it out to train in float32.'
        )
    kind = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        sys.exit(f'--amp can only replace an OptimWrapper, not {kind}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def scale_lr(cfg):
    """Switch automatic scaling of the learning rate on."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        sys.exit(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size, the batch '
            "size that the config's learning rate is meant for: --cfg-options "
            'auto_scale_lr.base_batch_size=16'
        )
    cfg.auto_scale_lr.enable = True


def resume(cfg, checkpoint):
    """Make the runner go on from a checkpoint."""
    if checkpoint == 'auto':
        checkpoint = find_last_checkpoint(cfg.work_dir)
        if checkpoint is None:
            print(
                f'No whole checkpoint in {cfg.work_dir}: training starts '
                'from the beginning.'
            )
            cfg.resume = False
            return
    cfg.load_from = checkpoint
    cfg.resume = True


def main():
    args = parse_args()
    cfg = load_config(
        args.config,
        args.cfg_options,
        args.work_dir,
        args.launcher,
        args.local_rank,
    )
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        scale_lr(cfg)
    if args.resume:
        resume(cfg, args.resume)
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    again = command_line(
        sys.argv[0], args.config, '--work-dir', cfg.work_dir, '--resume'
    )
    with interruptible(f'Stopped. To go on: {again}'):
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
