"""Train a segmentor, depth estimator, detector or mattor."""

import sys

from mmengine.device import get_device

from mmsapa.engine.cli import argument_parser, command_line, interruptible
from mmsapa.engine.runner import (
    build_runner,
    check_checkpoint,
    check_data,
    load_config,
)
from mmsapa.engine.training_options import resume, scale_lr, use_amp


def parse_args():
    parser = argument_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint, or from the last one in the work '
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


def resuming(args, cfg):
    """Say how to go on with an interrupted training."""
    if args.launcher != 'none':
        return 'the same command with --resume'
    words = [*sys.argv]
    if not args.work_dir:
        words += ['--work-dir', cfg.work_dir]
    if args.resume != 'auto':  # the last of several counts
        words.append('--resume')
    return command_line(*words)


@interruptible('Stopped.')
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
        use_amp(cfg, get_device())
    if args.auto_scale_lr:
        scale_lr(cfg)
    if args.resume and not resume(cfg, args.resume):
        print(
            f'No whole checkpoint in {cfg.work_dir}: training starts from '
            'the beginning.'
        )
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    with interruptible(f'Stopped. To resume: {resuming(args, cfg)}'):
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
