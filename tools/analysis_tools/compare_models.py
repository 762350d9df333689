r"""Draw the predictions of several models for the same images, side by side.

    python tools/analysis_tools/compare_models.py IMAGE_OR_FOLDER ... \
        --model CONFIG CHECKPOINT --model CONFIG CHECKPOINT ...

Models are segmentors or depth estimators of MMSegmentation, detectors of
MMDetection, or mattors. Without images, the tool draws some of the first
config's test data with ground truth.
Each model reads images by the pipeline of its own test_dataloader, as
tools/test.py does; files of a folder that are no images are skipped, and named
at the end. A model can have settings of its own, so that one config serves for
several upsamplers:

    --model CONFIG CHECKPOINT model.decode_head.upsample_cfg.variant=B

Boxes mark the regions where the predictions differ most, or, for a single
model with ground truth, where it is wrong; they are enlarged below every map.
Depth maps of an image share the colors of a logarithmic scale. Mattors need
the trimaps of images, from --trimaps. --background puts the foreground before
another background by each matte, which serves to estimate its colors, too.
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

from mmengine.config import DictAction
from mmengine.device import get_device
from tqdm import tqdm

from mmsapa.datasets.ground_truth import (
    add_maps,
    add_trimaps,
    check_ground_truth,
    read_trimap,
    test_data,
    test_items,
)
from mmsapa.datasets.processes import make_folder
from mmsapa.engine.cli import interruptible
from mmsapa.engine.config import kind_of
from mmsapa.engine.images import (
    ImageError,
    color_or_image,
    find_images,
    is_png,
    png_or_folder,
    read_image,
    report,
    save,
)
from mmsapa.engine.inference import (
    check_classes,
    device_of,
    legend_of,
    load_model,
    predict,
    upsampler_of,
)
from mmsapa.engine.runner import (
    check_checkpoint,
    check_data,
    load_config,
)
from mmsapa.visualization import Comparison, Detections, draw_comparison

# Items of the test data that are drawn by default.
FIRST = 4


def read_models(args):
    """Read config and checkpoint path of each model, by its name."""
    found = []
    for config, *rest in args.model:
        if not rest:
            sys.exit(
                f'--model: expected CONFIG CHECKPOINT, got {config} alone.'
            )
        checkpoint, *settings = rest
        cfg = load_config(config, settings_of(settings))
        check_checkpoint(checkpoint)
        found.append((cfg, checkpoint))
    (first, _), *others = found
    for cfg, _ in others:
        if kind_of(cfg) != kind_of(first):
            sys.exit(
                f'Expected models of one kind, got a {kind_of(first)} in '
                f'{first.filename} and a {kind_of(cfg)} in {cfg.filename}; '
                'compare them separately.'
            )
    names = args.names or [upsampler_of(cfg) for cfg, _ in found]
    if len(names) != len(found) or len(set(names)) != len(names):
        sys.exit(
            f'Expected {len(found)} different names for the models, got '
            f'{", ".join(names)}; give them as --names NAME NAME ...'
        )
    return dict(zip(names, found))


def settings_of(words):
    """Parse the settings of one model, as ``--cfg-options`` are parsed."""
    for word in words:
        key, sign, _ = word.partition('=')
        if not (key and sign):
            sys.exit(
                f'--model: expected KEY=VALUE after the checkpoint, got '
                f'{word}; images go before the first --model.'
            )
    parsed = argparse.Namespace()
    try:
        DictAction([], 'settings')(None, parsed, words)
    except AssertionError as error:  # brackets that are not closed
        sys.exit(f'--model: {" ".join(words)}: {error}')
    return parsed.settings


def read_items(cfg, args):
    """List what to draw, and what was skipped."""
    if args.images:
        items, skipped = find_images(args.images)
        items = add_trimaps(cfg, items, args.trimaps)
        if args.ground_truth:
            items = add_maps(cfg, items, args.ground_truth)
        return items, skipped
    check_data(cfg, 'test_dataloader')
    data = test_data(cfg)
    indices = args.indices
    if indices is None:
        indices = range(min(FIRST, len(data)))
    for index in indices:
        if not 0 <= index < len(data):
            sys.exit(
                f'--indices: expected numbers from 0 to {len(data) - 1}, '
                f'got {index}.'
            )
    items = test_items(cfg, data, indices)
    lacking = Counter(item.lacking for item in items if item.lacking)
    for why, count in lacking.items():
        print(f'No ground truth is drawn for {count} of {len(items)}: {why}.')
    return items, []


def compare(items, models, args, skipped):
    """Yield a row of the figure for each image that all models can take."""
    with tqdm(total=len(items) * len(models)) as bar:
        for item in items:
            bar.set_description(Path(item.path).name)
            predictions = {}
            try:
                image = read_image(item)
                for name, model in models.items():
                    predictions[name] = predict(model, item, args.score_thr)
                    bar.update()
            except ImageError as error:
                if not item.in_folder:
                    raise
                bar.update(len(models) - len(predictions))
                skipped.append(str(error))
                continue
            ground_truth = item.ground_truth
            if isinstance(ground_truth, Detections) and not all(
                found.masks is not None for found in predictions.values()
            ):
                ground_truth = ground_truth._replace(masks=None)
            yield Comparison(
                image,
                predictions,
                ground_truth,
                args.boxes,
                item.name,
                read_trimap(item),
            )


def draw(rows, path, model, args):
    legend = legend_of(model.dataset_meta, kind_of(model.cfg))
    try:
        figure = draw_comparison(
            rows,
            *legend,
            args.zooms,
            args.difference,
            background=args.background,
        )
    except ValueError as error:
        sys.exit(str(error))
    save(figure, path)
    return path


def run(args):
    """Write the figures, and report them."""
    configs = read_models(args)
    cfg, _ = next(iter(configs.values()))
    if args.background is not None and kind_of(cfg) != 'mattor':
        sys.exit(
            f'--background: expected mattors, got a {kind_of(cfg)}; leave it '
            'out.'
        )
    single = is_png(args.out)
    make_folder(args.out.parent if single else args.out)
    # Before models are loaded, to report a wrong name at once.
    items, skipped = read_items(cfg, args)
    models = {
        name: load_model(
            *pair, args.device, 'after the checkpoint as KEY=VALUE'
        )
        for name, pair in configs.items()
    }
    model = next(iter(models.values()))
    if kind_of(cfg) in ('segmentor', 'detector'):
        check_classes(models)
        check_ground_truth(cfg, items, model.dataset_meta['classes'])
    rows = compare(items, models, args, skipped)
    if single:
        rows = list(rows)
        written = [draw(rows, args.out, model, args)] if rows else []
    else:
        written = [
            draw([row], args.out / f'{row.name}.png', model, args)
            for row in rows
        ]
    print(report(written, skipped))


def box_of(text):
    try:
        x, y, w, h = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected x,y,w,h in pixels such as 10,20,64,64, got {text}.'
        ) from None
    return x, y, w, h


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'images',
        nargs='*',
        metavar='IMAGE_OR_FOLDER',
        help="images of any size (default: some of the config's test data)",
    )
    parser.add_argument(
        '--model',
        nargs='+',
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a column; KEY=VALUE after the checkpoint overrides settings of '
        'the config; the first model is the one the others are compared with',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        metavar='NAME',
        help='of the columns (default: the upsampler in the config)',
    )
    parser.add_argument(
        '--ground-truth',
        metavar='FOLDER',
        help='label, depth or alpha maps, PNG files with the names of the '
        "images, as in the data set of the first config's test_dataloader",
    )
    parser.add_argument(
        '--trimaps',
        metavar='FOLDER',
        help='trimaps, with the names of the images, which mattors need',
    )
    parser.add_argument(
        '--indices',
        nargs='+',
        type=int,
        metavar='N',
        help=f'items of the test data (default: the first {FIRST})',
    )
    parser.add_argument(
        '--zooms',
        type=int,
        default=2,
        metavar='N',
        help='regions to enlarge (default: 2)',
    )
    parser.add_argument(
        '--boxes',
        nargs='+',
        type=box_of,
        metavar='x,y,w,h',
        help='regions to enlarge instead, in pixels of the images',
    )
    parser.add_argument(
        '--difference',
        '--errors',
        action='store_true',
        help='show where each model is right and wrong, or differs from the '
        'first; of depth, relative errors; of mattes, errors of alpha',
    )
    parser.add_argument(
        '--background',
        type=color_or_image,
        metavar='COLOR_OR_IMAGE',
        help='draw composites over it, too, by each matte',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score of detections (default: 0.3)',
    )
    parser.add_argument(
        '--device',
        type=device_of,
        default=get_device(),
        help='for example cpu or cuda:0',
    )
    parser.add_argument(
        '--out',
        type=png_or_folder,
        default=Path('comparison.png'),
        help='FILE.png for a single figure, or a folder for one figure per '
        'image (default: comparison.png)',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    # Warnings of the libraries would break the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    with interruptible('Stopped; finished pictures are kept.'):
        run(args)


if __name__ == '__main__':
    main()
