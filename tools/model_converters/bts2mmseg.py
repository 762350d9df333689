"""Rename the weights of a checkpoint of BTS's PyTorch release.

    python tools/model_converters/bts2mmseg.py SOURCE TARGET

What is written fits configs/bts/bts_r50_nearest_1xb4-50e_nyu-416x544.py, or
for ResNet-101 the same config with that depth, for testing and as load_from.
"""

import argparse

from mmsapa.depth import from_bts
from mmsapa.engine.cli import interruptible
from mmsapa.engine.conversion import convert_checkpoint


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', help="the release's checkpoint")
    parser.add_argument('target', help='file to write')
    return parser.parse_args()


@interruptible('Stopped.')
def main():
    args = parse_args()
    count = convert_checkpoint(args.source, args.target, from_bts)
    print(f'Wrote {count} weights to {args.target}.')


if __name__ == '__main__':
    main()
