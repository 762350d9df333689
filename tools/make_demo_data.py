"""Draw the demo's scenes in the layouts of four real data sets."""

import argparse
import os.path as osp
import sys

from mmsapa.datasets.demo_data import (
    FORMATS,
    NUM_TRAIN,
    NUM_VAL,
    make_dataset,
)
from mmsapa.engine.cli import interruptible


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        default='data/demo',
        help='folder to write (default: data/demo)',
    )
    parser.add_argument(
        '--layout',
        nargs='+',
        choices=FORMATS,
        default=FORMATS,
        help='data sets to write (default: all)',
    )
    parser.add_argument(
        '--train',
        type=int,
        default=NUM_TRAIN,
        metavar='N',
        help=f'number of training images (default: {NUM_TRAIN})',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=NUM_VAL,
        metavar='N',
        help=f'number of validation images (default: {NUM_VAL})',
    )
    parser.add_argument(
        '--size',
        type=int,
        help="side in pixels (default: the demo's, 96 in coco, else 128)",
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed (default: 0)'
    )
    parser.add_argument(
        '--nproc',
        type=int,
        help='number of processes (default: one a core, at most eight)',
    )
    return parser.parse_args()


@interruptible('Stopped; incomplete data is not kept.')
def main():
    args = parse_args()
    for layout in args.layout:
        path = osp.join(args.out, layout)
        print(f'{path}: {args.train} training, {args.val} validation images')
        try:
            made = make_dataset(
                args.out,
                layout,
                args.train,
                args.val,
                args.size,
                args.seed,
                args.nproc,
            )
        except (ValueError, OSError) as error:
            sys.exit(str(error))
        print('  made' if made else '  there already')


if __name__ == '__main__':
    main()
