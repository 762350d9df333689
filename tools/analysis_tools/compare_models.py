r"""Draw what several models make of the same images, side by side.

    python tools/analysis_tools/compare_models.py IMAGE_OR_FOLDER ... \
        --model CONFIG CHECKPOINT --model CONFIG CHECKPOINT ...

Segmentors of MMSegmentation or detectors of MMDetection. Without images, some
of the first config's test data are drawn, with their truth. Each model reads
images by the pipeline of its own test_dataloader, as tools/test.py does; what
is no image in a folder is left out, and named at the end. A model may bring
settings of its own, so that one config serves for several operators:

    --model CONFIG CHECKPOINT model.decode_head.upsample_cfg.variant=B

Boxes mark the regions where the predictions differ most, or, of a single model
with truth, where it is wrong; they are enlarged under every map.
"""

import argparse
import sys
import warnings
from pathlib import Path

from mmengine.config import DictAction
from mmengine.device import get_device
from tqdm import tqdm

from mmsapa.datasets.ground_truth import label_map, test_data, test_items
from mmsapa.engine.config import library_of, type_name
from mmsapa.engine.images import (
    Unusable,
    find_images,
    leave_out,
    make_folder,
    read_image,
    save,
    sheet_or_folder,
    tell,
)
from mmsapa.engine.inference import (
    device_of,
    legend_of,
    load_model,
    metainfo_of,
    predict,
)
from mmsapa.engine.runner import (
    check_checkpoint,
    check_data,
    interruptible,
    load_config,
)
from mmsapa.visualization import Comparison, Detections, draw_comparison

# Items of the test data where none are named.
FIRST = 4


# ---- models -----------------------------------------------------------------


def read_models(args):
    """Read the configs; their library and classes must be the same.

    Returns:
        dict[str, tuple[Config, str]]: Config and checkpoint by the name of
        the model.
    """
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
        if library_of(cfg) != library_of(first):
            sys.exit(
                f'Expected models of one library, got {library_of(first)} in '
                f'{first.filename} and {library_of(cfg)} in {cfg.filename}; '
                'compare them apart.'
            )
    names = args.names or [name_of(cfg) for cfg, _ in found]
    if len(names) != len(found) or len(set(names)) != len(names):
        sys.exit(
            f'Expected {len(found)} different names for the models, got '
            f'{", ".join(names)}; give them as --names NAME NAME ...'
        )
    return dict(zip(names, found))


def settings_of(words):
    """Settings of one model, as ``--cfg-options`` has them."""
    settings = {}
    for word in words:
        key, sign, value = word.partition('=')
        if not (key and sign):
            sys.exit(
                f'--model: expected KEY=VALUE after the checkpoint, got '
                f'{word}; images go before the first --model.'
            )
        try:
            settings[key] = DictAction._parse_iterable(value)
        except AssertionError as error:  # brackets that are not closed
            sys.exit(f'--model: {word}: {error}')
    return settings


def name_of(cfg):
    """The upsampler that a config names; 'baseline' where it names none."""
    found = find_upsampler(cfg.model)
    if found is None:
        return 'baseline'
    name = type_name(found)
    if name.lower() == 'sapa':
        return f'SAPA-{found.get("variant", "G")}'
    return name


def find_upsampler(node):
    """The first ``upsample_cfg`` with a type, from the top downwards."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return None
    here = node.get('upsample_cfg')
    if isinstance(here, dict) and 'type' in here:
        return here
    found = (find_upsampler(value) for value in node.values())
    return next(filter(None, found), None)


def check_classes(models):
    """Stop unless the classes of all models are known and the same."""
    (first, model), *others = models.items()
    for name, other in models.items():
        if not other.dataset_meta.get('classes'):
            sys.exit(
                f'Expected the names of the classes in the checkpoint of '
                f'{name} or in the data of its config, got neither.'
            )
    expected = tuple(model.dataset_meta['classes'])
    for name, other in others:
        classes = tuple(other.dataset_meta['classes'])
        if classes != expected:
            sys.exit(
                f'Expected the same classes in all models, got '
                f'{some(expected)} in {first} and {some(classes)} in {name}.'
            )


def check_truth(cfg, items, model):
    """Stop if the ground truth has other classes than the models."""
    known = tuple(metainfo_of(cfg).get('classes') or ())
    classes = tuple(model.dataset_meta['classes'])
    if known not in ((), classes) and any(x.truth is not None for x in items):
        sys.exit(
            f'Expected the classes of the models, {some(classes)}, in the '
            f'data of {cfg.filename} too, got {some(known)}; name the config '
            'that was trained, or images without --truth.'
        )


def some(words):
    more = f', … ({len(words)})' if len(words) > 4 else ''
    return ', '.join(map(str, words[:4])) + more


# ---- images -----------------------------------------------------------------


def own_items(cfg, items, folder):
    """Add the truth of each image that the user names, from a folder."""
    if library_of(cfg) != 'mmseg':
        sys.exit(
            '--truth: expected models of MMSegmentation, got detectors; '
            "leave images out to draw the config's test data with its truth."
        )
    meta = metainfo_of(cfg)
    for item in items:
        places = [
            Path(folder) / f'{part}.png'
            for part in (item.name, Path(item.path).stem)
        ]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            sys.exit(f'There is no truth {places[0]} for {item.path}.')
        info = dict(
            seg_map_path=str(found),
            reduce_zero_label=meta.get('reduce_zero_label'),
            label_map=meta.get('label_map'),
            seg_fields=[],
        )
        truth, _ = label_map(cfg, info)
        yield item._replace(truth=truth)


def chosen_items(cfg, indices):
    """Items of the test data, the first ones where none are named."""
    check_data(cfg, 'test_dataloader')
    data = test_data(cfg)
    if indices is None:
        indices = range(min(FIRST, len(data)))
    for index in indices:
        if not 0 <= index < len(data):
            sys.exit(
                f'--indices: expected numbers from 0 to {len(data) - 1}, '
                f'got {index}.'
            )
    return test_items(cfg, data, indices)


# ---- command line -----------------------------------------------------------


def compare(items, models, args, skipped):
    """Yield a row of the sheet for each image that all models can take."""
    with tqdm(total=len(items) * len(models)) as bar:
        for item in items:
            bar.set_description(Path(item.path).name)
            predictions = {}
            try:
                image = read_image(item)
                for name, model in models.items():
                    predictions[name] = predict(model, item, args.score_thr)
                    bar.update()
            except Unusable as error:
                bar.update(len(models) - len(predictions))
                leave_out(item, error, skipped)
                continue
            truth = item.truth
            if isinstance(truth, Detections) and not all(
                p.masks is not None for p in predictions.values()
            ):
                truth = truth._replace(masks=None)
            yield Comparison(image, predictions, truth, args.boxes, item.name)


def draw(rows, path, model, args):
    try:
        figure = draw_comparison(
            rows,
            *legend_of(model.dataset_meta, library_of(model.cfg)),
            args.zooms,
            args.difference,
        )
    except ValueError as error:
        sys.exit(str(error))
    save(figure, path)


def run(args):
    """Compare, and write the pictures.

    Returns:
        tuple[list[Path], list[str]]: Pictures that were written, and why
        images were left out.
    """
    configs = read_models(args)
    cfg, _ = next(iter(configs.values()))
    single = args.out.suffix == '.png'
    make_folder(args.out.parent if single else args.out)
    # Before models are loaded, so that a wrong name is found at once.
    if args.images:
        items, skipped = find_images(args.images)
        if args.truth:
            items = list(own_items(cfg, items, args.truth))
    else:
        items, skipped = chosen_items(cfg, args.indices), []
    models = {
        name: load_model(
            *pair, args.device, 'after the checkpoint as KEY=VALUE'
        )
        for name, pair in configs.items()
    }
    check_classes(models)
    model = next(iter(models.values()))
    check_truth(cfg, items, model)
    rows = compare(items, models, args, skipped)
    if single:
        rows = list(rows)
        if rows:
            draw(rows, args.out, model, args)
        return [args.out] * bool(rows), skipped
    written = []
    for row in rows:
        written.append(args.out / f'{row.name}.png')
        draw([row], written[-1], model, args)
    return written, skipped


def box_of(text):
    try:
        x, y, w, h = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected x,y,w,h in pixels such as 10,20,64,64, got {text}.'
        ) from None
    return x, y, w, h


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'images',
        nargs='*',
        metavar='IMAGE_OR_FOLDER',
        help="images of any size; by default some of the config's test data",
    )
    parser.add_argument(
        '--model',
        nargs='+',
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a column; KEY=VALUE after the checkpoint replaces settings of '
        'the config; the first model is the one that others are held against',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        metavar='NAME',
        help='of the columns; by default the upsampler in the config',
    )
    parser.add_argument(
        '--truth',
        metavar='FOLDER',
        help='label maps, PNG files of the names of the images, with labels '
        "as in the data set of the first config's test_dataloader",
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
        help='regions to enlarge in their place, in pixels of the images',
    )
    parser.add_argument(
        '--difference',
        action='store_true',
        help='show where each is right and wrong, or differs from the first',
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
        help='cpu or cuda:0, for example',
    )
    parser.add_argument(
        '--out',
        type=sheet_or_folder,
        default=Path('comparison.png'),
        help='FILE.png for one sheet, or a folder that gets a picture of '
        'each image (default: comparison.png)',
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    # The libraries' asides would tear the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    with interruptible('Stopped; pictures that were done are kept.'):
        tell(*run(args))


if __name__ == '__main__':
    main()
