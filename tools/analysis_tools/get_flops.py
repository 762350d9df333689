"""Parameters and FLOPs of the model in a config.

    python tools/analysis_tools/get_flops.py CONFIG --shape 512 512

For any model of MMSegmentation or MMDetection, with random weights and without
data. Of the tools of that name in the two libraries, neither counts SAPA or
CARAFE, MMSegmentation's takes neither MaskFormer nor Mask2Former, and that of
MMSegmentation 1.2.2 does not run with mmengine 0.10.7 (its issue 3241).
"""

import argparse

from mmsapa.engine.cli import KeyValues, interruptible
from mmsapa.engine.inference import build_model
from mmsapa.engine.runner import load_config
from mmsapa.evaluation.complexity import count


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=[512, 512],
        metavar=('H', 'W'),
        help='size of the image in pixels; default: 512 512',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings of the config to override',
    )
    return parser.parse_args()


@interruptible('Stopped.')
def main():
    args = parse_args()
    model = build_model(load_config(args.config, args.cfg_options))
    counts = count(model, tuple(args.shape))
    print(f'Image: {"x".join(map(str, args.shape))}')
    print(f'Parameters: {counts["params"] / 1e6:.3f} M')
    print(f'FLOPs: {counts["flops"] / 1e9:.3f} G multiply-accumulates')
    print(
        f'Without norms and interpolation, as papers count: '
        f'{counts["products"] / 1e9:.3f} G'
    )
    for operator, calls in counts['uncounted'].items():
        print(f'Not counted: {operator} ({calls} calls)')


if __name__ == '__main__':
    main()
