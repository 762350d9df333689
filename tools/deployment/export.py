"""Export a segmentor or depth estimator to ONNX, and check it.

    python tools/deployment/export.py CONFIG CHECKPOINT --out model.onnx

The graph has ONNX's own operators only. It takes normalized images and makes
logits, or depth in meters, of their size; what is done to an image before is
in model.json. ONNX Runtime runs the graph on an image, and the largest
difference to PyTorch and both times are printed.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import torch

from mmsapa.datasets.demo_data import make_scene
from mmsapa.deployment import export_onnx
from mmsapa.engine.cli import KeyValues, interruptible
from mmsapa.engine.export import Dense
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
    return parser.parse_args()


def read_image(model, path):
    """The tensor that an image becomes; without one, that of a scene."""
    with tempfile.TemporaryDirectory() as folder:
        if not path:
            path = Path(folder, 'scene.png')
            cv2.imwrite(str(path), make_scene(0, 256).image)
        (item, *_), _ = find_images([path])
        return preprocess(model, item)


def median_time(run):
    """Milliseconds of a call, after one that does not count."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        out = run()
        times.append(time.perf_counter() - start)
    return out, 1e3 * statistics.median(times[1:])


def describe(cfg, image, dynamic):
    """What a program needs to know that runs the graph."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    pipeline = (loader.get('dataset') or {}).get('pipeline')
    return dict(
        config=str(cfg.filename),
        input=dict(name='image', shape=[*image.shape], sizes_vary=dynamic),
        output=dict(name='out'),
        data_preprocessor=cfg.model.get('data_preprocessor')
        or cfg.get('data_preprocessor'),
        pipeline=pipeline or cfg.get('test_pipeline'),
    )


@interruptible('Stopped; nothing was written.')
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
    cfg = load_config(args.config, args.cfg_options)
    check_checkpoint(args.checkpoint)
    # A sliding window is the caller's: the graph takes what it is given.
    cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, mode='whole')
    model = load_model(cfg, args.checkpoint, 'cpu', 'by --cfg-options')
    dense = Dense(model).eval()
    image = read_image(model, args.image)
    print(f'Exporting {cfg.filename} for {list(image.shape)} …', flush=True)
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = export_onnx(
        dense,
        (image,),
        dynamic_shapes=(sizes,) if args.dynamic else {},
        input_names=['image'],
        output_names=['out'],
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    program.save(args.out)
    description = args.out.with_suffix('.json')
    text = json.dumps(describe(cfg, image, args.dynamic), indent=2)
    description.write_text(f'{text}\n')
    session = onnxruntime.InferenceSession(args.out)
    feed = dict(image=image.numpy())
    with torch.no_grad():
        expected, ours = median_time(lambda: dense(image))
    (out,), theirs = median_time(lambda: session.run(None, feed))
    worst = (torch.from_numpy(out) - expected).abs().max()
    print(f'Wrote {args.out} and {description}.')
    print(
        f'Largest difference to PyTorch: {worst / expected.abs().max():.1e} '
        'of the largest number.'
    )
    print(f'ONNX Runtime {theirs:.0f} ms, PyTorch {ours:.0f} ms.')


if __name__ == '__main__':
    main()
