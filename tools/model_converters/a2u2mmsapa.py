"""Rename the weights of a checkpoint of A2U matting's release.

    python tools/model_converters/a2u2mmsapa.py SOURCE TARGET

For its baseline with ResNet-34, max-pool and interpolation. What is written
fits configs/a2u_matting/a2u-matting_r34_bilinear_1xb16-30e_comp1k-512x512.py,
for testing and as load_from.
"""

import argparse

from mmsapa.engine.cli import interruptible
from mmsapa.engine.conversion import convert_checkpoint
from mmsapa.matting import from_a2u


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
    count = convert_checkpoint(args.source, args.target, from_a2u)
    print(f'Wrote {count} weights to {args.target}.')


if __name__ == '__main__':
    main()
