"""Make a small data set to train mattors with of 27 photographs.

    python tools/dataset_converters/alphamatting.py ROOT --out FOLDER

ROOT has images, alpha and trimap of alphamatting.com's training set, GT01.png
to GT27.png in each. 20 give foregrounds and backgrounds to train with, next
to the demo's; 7 are for the test. FOLDER gets Composition-1K's layout.
"""

import argparse

from mmsapa.datasets.alphamatting import convert
from mmsapa.engine.cli import interruptible


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('root', help='folder of images, alpha and trimap')
    parser.add_argument(
        '--out',
        default='data/alphamatting',
        help='folder to write (default: %(default)s)',
    )
    parser.add_argument(
        '--side',
        type=int,
        default=400,
        help='longer side of the photographs in pixels (default: %(default)s)',
    )
    parser.add_argument(
        '--nproc',
        type=int,
        help='number of processes (default: one a core, at most eight)',
    )
    return parser.parse_args()


@interruptible('Stopped; incomplete data are not kept.')
def main():
    args = parse_args()
    made = convert(args.root, args.out, args.side, args.nproc)
    print(f'{args.out}: {"made" if made else "there already"}')


if __name__ == '__main__':
    main()
