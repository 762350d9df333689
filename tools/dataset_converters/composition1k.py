"""Compose the test set of Composition-1K, as Adobe's script does.

    python tools/dataset_converters/composition1k.py ROOT --bg JPEGIMAGES

ROOT is Adobe's folder, which holds Test_set; JPEGIMAGES is that of VOC 2012.
A thousand composites, their trimaps and alpha maps, and test.txt are written
beside what is there. After an interruption the same command goes on.
"""

import argparse

from mmsapa.datasets.composition1k_composer import compose_test_set
from mmsapa.engine.cli import interruptible


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('root', help="Adobe's folder")
    parser.add_argument(
        '--bg',
        nargs='+',
        required=True,
        metavar='FOLDER',
        help='folders of the backgrounds, such as VOC2012/JPEGImages',
    )
    parser.add_argument('--out', help='folder to write (default: ROOT)')
    parser.add_argument(
        '--nproc',
        type=int,
        help='number of processes (default: one a core, at most eight)',
    )
    return parser.parse_args()


@interruptible('Stopped. The same command goes on from there.')
def main():
    args = parse_args()
    made = compose_test_set(args.root, args.bg, args.out, args.nproc)
    print(f'{made} composites made in {args.out or args.root}/Test_set')


if __name__ == '__main__':
    main()
