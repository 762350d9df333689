"""Rename the weights of a checkpoint of BTS's PyTorch release.

    python tools/model_converters/bts2mmseg.py SOURCE TARGET

What is written fits configs/bts/bts_r50_nearest_1xb4-50e_nyu-416x544.py, or
for ResNet-101 the same config with that depth, for testing and as load_from.
"""

import argparse

import torch

from mmsapa.depth import from_bts
from mmsapa.engine.checkpoint import read_checkpoint, weights_of
from mmsapa.engine.cli import interruptible
from mmsapa.engine.errors import UserError
from mmsapa.engine.runner import check_checkpoint


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
    check_checkpoint(args.source)
    weights = weights_of(read_checkpoint(args.source))
    try:
        weights = from_bts(weights)
    except ValueError as error:
        raise UserError(f'{args.source}: {error}') from error
    torch.save(dict(state_dict=weights, meta={}), args.target)
    print(f'Wrote {len(weights)} weights to {args.target}.')


if __name__ == '__main__':
    main()
