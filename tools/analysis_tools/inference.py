"""Models and images for the tools that look at predictions."""

import argparse
import itertools
import pickle
import sys
import textwrap
from pathlib import Path

import mmcv
from mmengine.dataset import BaseDataset
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from mmengine.runner import load_checkpoint

from mmsapa.checkpoint import allow_training_checkpoints

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def load_model(cfg, checkpoint, device, option):
    """Build a model and load all of its weights.

    Args:
        cfg (Config): Of MMSegmentation or MMDetection.
        checkpoint (str): File or address.
        device (str): Where it shall run.
        option (str): How the tool is told settings of the config.

    Returns:
        nn.Module: In evaluation mode, ready for ``inference_model`` or
        ``inference_detector``.
    """
    if cfg.default_scope == 'mmseg':
        from mmseg.apis import init_model as init
    else:
        from mmdet.apis import init_detector as init
    model = revert_sync_batchnorm(init(cfg, None, device=device))
    loaded = load_weights(
        model,
        checkpoint,
        cfg.filename,
        f'Name the config that it was trained with, or its settings {option}.',
    )
    dataset = test_dataset(cfg, lazy_init=True)
    trained = loaded.get('meta', {}).get('dataset_meta') or {}
    model.dataset_meta = {**dataset.metainfo, **trained}
    return model


def load_weights(model, checkpoint, what, advice):
    """Load all weights of a model, or say in a sentence why not.

    Weights that are not there would be random ones, and what such a model
    predicts says nothing about its operator.

    Args:
        model (nn.Module): Takes the weights.
        checkpoint (str): File or address.
        what (str): The model, in words.
        advice (str): A sentence for whom the checkpoint does not fit.

    Returns:
        dict: The checkpoint.
    """
    allow_training_checkpoints()
    try:
        return load_checkpoint(
            model, checkpoint, map_location='cpu', strict=True
        )
    except (EOFError, KeyError, pickle.UnpicklingError) as error:
        sys.exit(
            f'{checkpoint}: expected a checkpoint of PyTorch, got what cannot '
            f'be read: {type(error).__name__}, {shorten(error)}'
        )
    except RuntimeError as error:
        # The first line only says that something is wrong.
        reason = str(error).partition('\n')[2] or error
        sys.exit(
            f'{checkpoint} does not fit {what}: {shorten(reason)} {advice}'
        )


def shorten(message):
    """Make one short line of a message."""
    return textwrap.shorten(str(message), 160, placeholder=' …')


def test_dataset(cfg, **kwargs) -> BaseDataset:
    """Build the data of ``test_dataloader``, without wrappers and pipeline."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build({**dataset, 'pipeline': [], **kwargs})


def infer(model, path):
    """Run a model of :func:`load_model` on an image file.

    Returns:
        SegDataSample | DetDataSample: What it predicts.
    """
    if model.cfg.default_scope == 'mmseg':
        from mmseg.apis import inference_model as run
    else:
        from mmdet.apis import inference_detector as run
    height, width = read_image(path).shape[:2]
    try:
        return run(model, path)
    except (RuntimeError, ValueError) as error:
        # Most models need images of some size, and all have some limit.
        sys.exit(
            f'{model.cfg.filename} cannot take {path} of {width} x {height} '
            f'pixels: {shorten(error)}'
        )


def label_map(cfg, info):
    """Read a label map as training does, reduce_zero_label and all.

    Args:
        cfg (Config): Of the library whose ``LoadAnnotations`` reads.
        info (dict): Of an item of the data set.

    Returns:
        ndarray[H, W] | None: Labels; None where the item has none.
    """
    if 'seg_map_path' not in info:  # the public part of a test set
        return None
    try:
        return annotations(cfg, info)['gt_seg_map']
    except OSError as error:
        sys.exit(
            f'{info["seg_map_path"]}: expected a label map (PNG), got what '
            f'cannot be read: {error}'
        )


def annotations(cfg, info, **kwargs):
    """Load the annotations of an item; ``kwargs`` as LoadAnnotations has."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        load = TRANSFORMS.build(dict(type='LoadAnnotations', **kwargs))
    return load(info)


def find_images(paths):
    """List images and those in folders.

    Returns:
        dict[str, str]: Path of each by its name, which is relative to its
        folder and without suffix, and numbered where that is taken.
    """
    found = {}

    def add(name, path):
        found[free_name(name, found)] = str(path)

    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob('*')
                if file.suffix.lower() in IMAGES
            )
            if not files:
                sys.exit(f'There is no image ({" ".join(IMAGES)}) in {path}.')
            for file in files:
                add(file.relative_to(path).with_suffix('').as_posix(), file)
        elif path.is_file():
            add(path.stem, path)
        else:
            sys.exit(f'There is no image or folder {path}.')
    return found


def free_name(name, taken):
    """Number a name if it is taken."""
    others = (f'{name}_{i}' for i in itertools.count(2))
    return next(x for x in itertools.chain([name], others) if x not in taken)


def sheet_or_folder(text):
    """Take ``--out``: FILE.png, or a folder."""
    path = Path(text)
    if path.suffix.lower() in {*IMAGES, '.pdf', '.svg'} - {'.png'}:
        raise argparse.ArgumentTypeError(
            f'expected FILE.png or a folder, got {text}.'
        )
    return path


def read_image(path):
    """Read an image as OpenMMLab's pipelines do, but as RGB."""
    image = mmcv.imread(path)
    if image is None:
        sys.exit(f'{path}: expected an image, got what OpenCV cannot read.')
    return image[..., ::-1]
