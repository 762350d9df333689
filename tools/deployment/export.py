"""Export a model to ONNX, and check it.

    python tools/deployment/export.py CONFIG CHECKPOINT --out model.onnx

The graph has ONNX's own operators only. It takes normalized images and makes
logits, depth in meters or mattes of their size; of a detector, the maps of the
neck and what its dense head makes of them. What is done to an image before is
in model.json. ONNX Runtime runs the graph on an image, and the largest
difference to PyTorch and both times are printed.
"""

import argparse
import inspect
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from mmsapa.datasets.demo_data import make_scene
from mmsapa.datasets.ground_truth import add_trimaps
from mmsapa.datasets.processes import PARTIAL, make_folder
from mmsapa.deployment import export_onnx
from mmsapa.engine.cli import KeyValues, interruptible
from mmsapa.engine.config import ConfigError, kind_of, library_of
from mmsapa.engine.export import Dense, largest_difference
from mmsapa.engine.images import find_images
from mmsapa.engine.inference import load_model, preprocess
from mmsapa.engine.runner import check_checkpoint, load_config
from mmsapa.errors import UserError

RUNS = 5


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file, or mmsapa::NAME')
    parser.add_argument('checkpoint', help='file with the weights')
    parser.add_argument(
        '--out', type=Path, required=True, help='file to write, *.onnx'
    )
    parser.add_argument(
        '--image',
        help='image to check with, whose size after the pipeline the graph '
        'has; default: a scene that is drawn',
    )
    parser.add_argument(
        '--trimaps',
        help='folder with the trimap of --image, of the same name, which '
        'mattors need',
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help="let height and width vary, in multiples of the model's "
        'stride, which takes minutes to export',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings of the config to override',
    )
    args = parser.parse_args()
    if args.out.suffix != '.onnx' or args.out.is_dir():
        parser.error(f'--out: expected a file *.onnx, got {args.out}')
    return args


def read_image(model, path, trimaps):
    """The tensor that an image becomes; without one, that of a scene."""
    with tempfile.TemporaryDirectory() as folder:
        if not path:
            path = Path(folder, 'scene.png')
            cv2.imwrite(str(path), make_scene(0, 256).image)
            if kind_of(model.cfg) == 'mattor':
                trimaps = Path(folder, 'trimaps')
                trimaps.mkdir()
                # Background, unknown and foreground side by side.
                trimap = np.tile(np.uint8([0, 128, 128, 255]), (256, 64))
                cv2.imwrite(str(trimaps / path.name), np.sort(trimap))
        items, _ = find_images([path])
        item, *_ = add_trimaps(model.cfg, items, trimaps)
        return preprocess(model, item)


def median_time(run):
    """Milliseconds of a call, after one that does not count."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        out = run()
        times.append(time.perf_counter() - start)
    return out, 1e3 * statistics.median(times[1:])


def describe(model, image, results, dynamic):
    """What a program needs to know that runs the graph."""
    cfg = model.cfg
    arguments = inspect.signature(type(model.data_preprocessor)).parameters
    preprocessor = {
        name: argument.default
        for name, argument in arguments.items()
        if argument.default is not argument.empty
    }
    preprocessor |= (
        cfg.model.get('data_preprocessor')
        or cfg.get('data_preprocessor')
        or {}
    )
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    pipeline = (loader.get('dataset') or {}).get('pipeline')
    return dict(
        config=str(cfg.filename),
        input=dict(name='image', shape=[*image.shape], sizes_vary=dynamic),
        outputs=[
            dict(name=name, shape=[*x.shape]) for name, x in results.items()
        ],
        data_preprocessor=preprocessor,
        pipeline=pipeline or cfg.get('test_pipeline'),
    )


@interruptible('Stopped; what is not complete was not written.')
def main():
    args = parse_args()
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'export.py: expected onnx, onnxscript and onnxruntime: {error}; '
            'run pip install onnx onnxscript onnxruntime.'
        ) from error
    make_folder(args.out.parent)
    cfg = load_config(args.config, args.cfg_options)
    check_checkpoint(args.checkpoint)
    if library_of(cfg) == 'mmseg':
        # A sliding window is the caller's: the graph takes what it is given.
        whole = dict(cfg.model.get('test_cfg') or {}, mode='whole')
        cfg.model.test_cfg = whole
    model = load_model(cfg, args.checkpoint, 'cpu', 'by --cfg-options')
    dense = Dense(model).eval()
    image = read_image(model, args.image, args.trimaps)
    stride, sides = dense.stride, image.shape[2:]
    if args.dynamic and any(x % stride or x <= 4 * stride for x in sides):
        raise ConfigError(
            '--dynamic: expected an image whose sides, after pipeline and '
            f'preprocessor, are multiples of {stride} and at least '
            f'{5 * stride}, got {list(sides)}; name another by --image.'
        )
    print(f'Exporting {cfg.filename} for {list(image.shape)} …', flush=True)
    with torch.no_grad():
        expected, ours = median_time(lambda: dense.named(image))
    # Configs in pure Python have classes for their names.
    text = json.dumps(
        describe(model, image, expected, args.dynamic),
        indent=2,
        default=lambda kind: getattr(kind, '__name__', str(kind)),
    )
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = export_onnx(
        dense,
        (image,),
        dynamic_shapes=(sizes,) if args.dynamic else {},
        input_names=['image'],
        output_names=[*expected],
    )
    partial = args.out.with_name(args.out.name + PARTIAL)
    program.save(partial)
    partial.replace(args.out)
    description = args.out.with_suffix('.json')
    description.write_text(f'{text}\n')
    session = onnxruntime.InferenceSession(args.out)
    feed = dict(image=image.numpy())
    got, theirs = median_time(lambda: session.run(None, feed))
    got = [torch.from_numpy(x) for x in got]
    worst = largest_difference(got, [*expected.values()])
    print(f'Wrote {args.out} and {description}.')
    print(f'Largest difference to PyTorch: {worst:.1e} of the largest number.')
    print(f'ONNX Runtime {theirs:.0f} ms, PyTorch {ours:.0f} ms.')


if __name__ == '__main__':
    main()
