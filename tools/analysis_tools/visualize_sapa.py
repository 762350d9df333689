"""Draw what happens inside of a model's SAPA layers.

    python tools/analysis_tools/visualize_sapa.py CONFIG CHECKPOINT IMAGE ...

For each image a sheet with two rows a stage: encoder and decoder feature,
what SAPA, bilinear and nearest interpolation make of the latter, and SAPA's
kernels (the supplement's Fig. S4). Images may have any size, and segmentors
take them as a whole, by the pipeline of the config's test_dataloader; folders
are searched for images, and what is none there is named at the end.
"""

import argparse
import sys
import warnings
from pathlib import Path

from mmengine.device import get_device
from tqdm import tqdm

from mmsapa.engine.config import library_of
from mmsapa.engine.images import (
    Unusable,
    find_images,
    leave_out,
    make_folder,
    save,
    sheet_or_folder,
    tell,
)
from mmsapa.engine.inference import device_of, infer, load_model
from mmsapa.engine.runner import (
    KeyValues,
    check_checkpoint,
    interruptible,
    load_config,
)
from mmsapa.visualization import draw_sapa_figure, find_stages, record


def run(args):
    """Draw, and write the sheets.

    Returns:
        tuple[list[Path], list[str]]: Sheets that were written, and why
        images were left out.
    """
    cfg = load_config(args.config, args.cfg_options)
    check_checkpoint(args.checkpoint)
    if library_of(cfg) == 'mmseg':
        # A sliding window would show its first place alone.
        cfg.model.test_cfg = dict(
            cfg.model.get('test_cfg') or {}, mode='whole'
        )
    items, skipped = find_images(args.images)
    single = args.out.suffix == '.png'
    if single and len(items) > 1:
        sys.exit(
            f'--out: expected a folder for {len(items)} images, got the file '
            f'{args.out}.'
        )
    model = load_model(
        cfg, args.checkpoint, args.device, 'by --cfg-options KEY=VALUE'
    )
    written = []
    try:
        if args.list:
            print(*find_stages(model), sep='\n')
            return [], []
        find_stages(model, args.stages)
        make_folder(args.out.parent if single else args.out)
        for item in tqdm(items):
            try:
                with record(model, args.stages) as recording:
                    infer(model, item)
            except Unusable as error:
                leave_out(item, error, skipped)
                continue
            sheet = draw_sapa_figure(recording, args.points, args.channel)
            written.append(
                args.out if single else args.out / f'{item.name}.png'
            )
            save(sheet, written[-1])
    except ValueError as error:
        sys.exit(str(error))
    return written, skipped


def point_of(text):
    try:
        x, y = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected x,y in pixels such as 40,25, got {text}.'
        ) from None
    return x, y


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config of a model with SAPA in it')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument(
        'images', nargs='*', metavar='IMAGE_OR_FOLDER', help='what to look at'
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
        'kernels are drawn (default: the most decided ones)',
    )
    parser.add_argument(
        '--channel',
        type=int,
        help='show one channel of the features (default: their principal '
        'components as colours)',
    )
    parser.add_argument(
        '--out',
        type=sheet_or_folder,
        default=Path('sapa_sheets'),
        help='folder for the sheets, or FILE.png for a single one (default: '
        'sapa_sheets)',
    )
    parser.add_argument(
        '--device',
        type=device_of,
        default=get_device(),
        help='cpu or cuda:0, for example',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that replace those of the config',
    )
    args = parser.parse_args(argv)
    if not args.images and not args.list:
        parser.error('expected images or folders of them, got none.')
    return args


def main(argv=None):
    args = parse_args(argv)
    # The libraries' asides would tear the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    with interruptible('Stopped; sheets that were done are kept.'):
        tell(*run(args))


if __name__ == '__main__':
    main()
