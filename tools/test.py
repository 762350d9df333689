"""Test a segmentor, depth estimator, detector or mattor."""

from mmsapa.datasets.checks import check_file_names
from mmsapa.engine.cli import argument_parser, interruptible
from mmsapa.engine.config import kind_of
from mmsapa.engine.evaluation_options import prepare_test
from mmsapa.engine.runner import (
    build_runner,
    check_checkpoint,
    check_data,
    load_config,
)


def parse_args():
    parser = argument_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file or its address')
    parser.add_argument(
        '--out',
        help='folder for the predictions of a segmentor or mattor (PNG files) '
        'or depth estimator (PNG files of 16 bits, millimeters), or .pkl file '
        'for those of a detector',
    )
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir', help='folder for images with painted predictions'
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that each window stays open (default: 2)',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation'
    )
    return parser.parse_args()


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
    prepare_test(
        cfg, args.out, args.show, args.show_dir, args.wait_time, args.tta
    )
    check_checkpoint(args.checkpoint)
    check_data(cfg, 'test_dataloader')
    cfg.load_from, cfg.resume = args.checkpoint, False
    runner = build_runner(cfg)
    # Other metrics that write files look at the names themselves.
    if args.show_dir or (args.out and kind_of(cfg) == 'segmentor'):
        check_file_names(runner.test_loop.dataloader.dataset)
    runner.test()


if __name__ == '__main__':
    main()
