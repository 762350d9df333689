r"""Draw what several models make of the same images, side by side.

    python tools/analysis_tools/compare_models.py IMAGE_OR_FOLDER ... \
        --model CONFIG CHECKPOINT --model CONFIG CHECKPOINT ...

Segmentors of MMSegmentation or detectors of MMDetection. Without images, some
of the first config's test data are drawn, with their truth. A model may bring
settings of its own, so that one config serves for several operators:

    --model CONFIG CHECKPOINT model.decode_head.upsample_cfg.variant=B

Boxes mark the regions where the predictions differ most, or, of a single model
with truth, where it is wrong; they are enlarged under every map.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
from inference import (
    annotations,
    find_images,
    free_name,
    infer,
    label_map,
    load_model,
    read_image,
    sheet_or_folder,
    test_dataset,
)
from mmengine.config import DictAction
from mmengine.device import get_device
from tqdm import tqdm

from mmsapa.runner import (
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
        if cfg.default_scope != first.default_scope:
            sys.exit(
                'Expected models of one library, got default_scope '
                f'{first.default_scope} in {first.filename} and '
                f'{cfg.default_scope} in {cfg.filename}; compare them apart.'
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
    for word in words:
        if '=' not in word:
            sys.exit(
                f'--model: expected KEY=VALUE after the checkpoint, got '
                f'{word}; images go before the first --model.'
            )
    pairs = (word.split('=', 1) for word in words)
    return {k: DictAction._parse_iterable(v) for k, v in pairs}


def name_of(cfg):
    """The upsampler that a config names; 'baseline' where it names none."""
    found = find_upsampler(cfg.model)
    if found is None:
        return 'baseline'
    if found['type'] == 'sapa':
        return f'SAPA-{found.get("variant", "G")}'
    return found['type']


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
    (first, model), *others = models.items()
    expected = tuple(model.dataset_meta['classes'])
    for name, other in others:
        classes = tuple(other.dataset_meta['classes'])
        if classes != expected:
            sys.exit(
                f'Expected the same classes in all models, got '
                f'{some(expected)} in {first} and {some(classes)} in {name}.'
            )


def some(words):
    more = f', … ({len(words)})' if len(words) > 4 else ''
    return ', '.join(words[:4]) + more


def colours_of(model):
    """The palette, or where there is none, one that is always the same."""
    count = len(model.dataset_meta['classes'])
    palette = model.dataset_meta.get('palette')
    if palette is None or isinstance(palette, str):
        return np.random.default_rng(0).integers(0, 256, (count, 3))
    return palette


def predict(model, path, score_thr):
    """What a model makes of an image.

    Returns:
        np.ndarray | Detections: Labels [H, W], or detections of a score of
        at least ``score_thr``.
    """
    sample = infer(model, path)
    if model.cfg.default_scope == 'mmseg':
        return sample.pred_sem_seg.data[0].cpu().numpy()
    if 'pred_instances' not in sample:
        sys.exit(
            f'{model.cfg.filename}: expected a detector of boxes, got one '
            f'that predicts {", ".join(sample.keys())}.'
        )
    found = sample.pred_instances.cpu()
    found = found[found.scores >= score_thr]
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    masks = found.masks.numpy() if 'masks' in found else None
    return Detections(boxes.numpy(), found.labels.numpy(), masks)


# ---- images -----------------------------------------------------------------


def own_items(cfg, args):
    """Name, path and truth of each image that the user names."""
    if args.truth and cfg.default_scope != 'mmseg':
        sys.exit(
            '--truth: expected models of MMSegmentation, got detectors; '
            "leave images out to draw the config's test data with its truth."
        )
    dataset = args.truth and test_dataset(cfg, lazy_init=True)
    for name, path in find_images(args.images).items():
        truth = None
        if args.truth:
            places = [
                Path(args.truth) / f'{part}.png'
                for part in (name, Path(path).stem)
            ]
            found = next((p for p in places if p.is_file()), None)
            if found is None:
                sys.exit(f'There is no truth {places[0]} for {path}.')
            info = dict(
                seg_map_path=str(found),
                reduce_zero_label=dataset.reduce_zero_label,
                label_map=dataset.label_map,
                seg_fields=[],
            )
            truth = label_map(cfg, info)
        yield name, path, truth


def test_items(cfg, indices):
    """Name, path and truth of items of the test data."""
    check_data(cfg, 'test_dataloader')
    dataset = test_dataset(cfg)
    if indices is None:
        indices = range(min(FIRST, len(dataset)))
    names = set()
    for index in indices:
        if not 0 <= index < len(dataset):
            sys.exit(
                f'--indices: expected numbers from 0 to {len(dataset) - 1}, '
                f'got {index}.'
            )
        info = dataset.get_data_info(index)
        read = label_map if cfg.default_scope == 'mmseg' else instances
        path = info['img_path']
        name = free_name(Path(path).stem, names)
        names.add(name)
        yield name, path, read(cfg, info)


def instances(cfg, info):
    """Read boxes, and masks where there are, that are to be found."""
    masked = all('mask' in item for item in info['instances'])
    height, width = info['height'], info['width']
    info = annotations(
        cfg,
        dict(info, ori_shape=(height, width)),
        with_mask=masked,
        box_type=None,
    )
    wanted = ~info['gt_ignore_flags']
    masks = info['gt_masks'].masks[wanted] if masked else None
    return Detections(
        info['gt_bboxes'][wanted], info['gt_bboxes_labels'][wanted], masks
    )


# ---- command line -----------------------------------------------------------


def compare(items, models, args):
    """Yield a row of the sheet for each image."""
    with tqdm(total=len(items) * len(models)) as bar:
        for name, path, truth in items:
            image = read_image(path)
            bar.set_description(Path(path).name)
            predictions = {}
            for operator, model in models.items():
                predictions[operator] = predict(model, path, args.score_thr)
                bar.update()
            if isinstance(truth, Detections) and not all(
                p.masks is not None for p in predictions.values()
            ):
                truth = truth._replace(masks=None)
            yield Comparison(image, predictions, truth, args.boxes, name)


def save(rows, path, model, args):
    try:
        figure = draw_comparison(
            rows,
            colours_of(model),
            model.dataset_meta['classes'],
            args.zooms,
            args.difference,
        )
    except ValueError as error:
        sys.exit(str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, pil_kwargs=dict(optimize=True))


def run(args):
    """Compare, and write the pictures.

    Returns:
        list[Path]: Pictures that were written.
    """
    configs = read_models(args)
    cfg, _ = next(iter(configs.values()))
    # Before models are loaded, so that a wrong name is found at once.
    items = list(
        own_items(cfg, args) if args.images else test_items(cfg, args.indices)
    )
    models = {
        name: load_model(
            *pair, args.device, 'after the checkpoint as KEY=VALUE'
        )
        for name, pair in configs.items()
    }
    check_classes(models)
    model = next(iter(models.values()))
    rows = compare(items, models, args)
    if args.out.suffix == '.png':
        save(list(rows), args.out, model, args)
        return [args.out]
    written = []
    for row in rows:
        path = args.out / f'{row.name}.png'
        save([row], path, model, args)
        written.append(path)
    return written


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
        '--device', default=get_device(), help='cpu or cuda:0, for example'
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
        for path in run(args):
            print(f'{path}  {os.path.getsize(path) / 1000:.0f} kB')


if __name__ == '__main__':
    main()
