"""Draw features and kernels inside a model's SAPA layers.

    python tools/analysis_tools/visualize_sapa.py CONFIG CHECKPOINT IMAGE ...

Each image gets a figure with two rows for each layer: encoder and decoder
feature, the latter upsampled by SAPA, by bilinear and by nearest
interpolation, and SAPA's kernels (the supplement's Fig. S4). Images can have
any size; segmentors take them as a whole, by the pipeline of the config's
test_dataloader. Mattors need the trimaps of images, from --trimaps. Files of a
folder that are no images are skipped, and named at the end.
"""

import argparse
import sys
import warnings
from pathlib import Path

from mmengine.device import get_device
from tqdm import tqdm

from mmsapa.datasets.ground_truth import add_trimaps
from mmsapa.datasets.processes import make_folder
from mmsapa.engine.cli import KeyValues, interruptible
from mmsapa.engine.config import library_of
from mmsapa.engine.images import (
    ImageError,
    find_images,
    is_png,
    png_or_folder,
    report,
    save,
)
from mmsapa.engine.inference import device_of, infer, load_model
from mmsapa.engine.runner import (
    check_checkpoint,
    load_config,
)
from mmsapa.visualization import draw_sapa_figure, find_stages, record


def run(args):
    """Write the figures, and report them."""
    cfg = load_config(args.config, args.cfg_options)
    check_checkpoint(args.checkpoint)
    if library_of(cfg) == 'mmseg':
        # Of a sliding window only the first position would be recorded.
        cfg.model.test_cfg = dict(
            cfg.model.get('test_cfg') or {}, mode='whole'
        )
    elif library_of(cfg) == 'mmsapa':
        cfg.model.test_cfg = None  # likewise of tiles
    items, skipped = find_images(args.images)
    if not args.list:
        items = add_trimaps(cfg, items, args.trimaps)
    single = is_png(args.out)
    if single and len(items) > 1:
        sys.exit(
            f'--out: expected a folder for {len(items)} images, got the file '
            f'{args.out}.'
        )
    model = load_model(
        cfg, args.checkpoint, args.device, 'by --cfg-options KEY=VALUE'
    )
    if args.list:
        print(*find_stages(model), sep='\n')
        return
    find_stages(model, args.stages)
    make_folder(args.out.parent if single else args.out)
    written = []
    for item in tqdm(items):
        try:
            with record(model, args.stages) as recording:
                infer(model, item)
        except ImageError as error:
            if not item.in_folder:
                raise
            skipped.append(str(error))
            continue
        figure = draw_sapa_figure(recording, args.points, args.channel)
        written.append(args.out if single else args.out / f'{item.name}.png')
        save(figure, written[-1])
    print(report(written, skipped))


def point_of(text):
    try:
        x, y = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected x,y in pixels such as 40,25, got {text}.'
        ) from None
    return x, y


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config of a model with SAPA layers')
    parser.add_argument('checkpoint', help='checkpoint file or its address')
    parser.add_argument(
        'images', nargs='*', metavar='IMAGE_OR_FOLDER', help='what to draw'
    )
    parser.add_argument(
        '--trimaps',
        metavar='FOLDER',
        help='trimaps, with the names of the images, which mattors need',
    )
    parser.add_argument(
        '--stages',
        nargs='+',
        metavar='NAME',
        help='names of SAPA layers, or parts of them (default: all)',
    )
    parser.add_argument(
        '--list', action='store_true', help='print the names of the stages'
    )
    parser.add_argument(
        '--points',
        nargs='+',
        type=point_of,
        default=[],
        metavar='x,y',
        help='up to three pixels of the image, as the model sees it, whose '
        'kernels are drawn (default: those of least entropy)',
    )
    parser.add_argument(
        '--channel',
        type=int,
        help='show one channel of the features (default: their principal '
        'components as colors)',
    )
    parser.add_argument(
        '--out',
        type=png_or_folder,
        default=Path('sapa_figures'),
        help='folder for the figures, or FILE.png for a single one (default: '
        'sapa_figures)',
    )
    parser.add_argument(
        '--device',
        type=device_of,
        default=get_device(),
        help='for example cpu or cuda:0',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that override those of the config',
    )
    args = parser.parse_args()
    if not args.images and not args.list:
        parser.error('expected images or folders of them, got none.')
    return args


def main():
    args = parse_args()
    # Warnings of the libraries would break the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    with interruptible('Stopped; finished figures are kept.'):
        try:
            run(args)
        except ValueError as error:  # stages, points or channel do not fit
            sys.exit(str(error))


if __name__ == '__main__':
    main()
