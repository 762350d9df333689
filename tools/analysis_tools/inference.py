"""Models and images for the tools that look at predictions."""

import argparse
import sys
import textwrap
from pathlib import Path

import mmcv
from mmengine.dataset import BaseDataset
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import load_checkpoint

from mmsapa.checkpoint import allow_training_checkpoints
from mmsapa.runner import load_config

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def read_config(config, settings):
    """Read a config.

    Args:
        config (str): File.
        settings (dict, optional): As ``--cfg-options`` has them.

    Returns:
        Config: With ``settings``.
    """
    return load_config(
        argparse.Namespace(
            config=config,
            cfg_options=settings,
            local_rank=0,
            launcher='none',
            work_dir=None,
        )
    )


def check_checkpoint(path):
    """Stop in a sentence if a checkpoint, file or address, is not there."""
    if '://' not in path and not Path(path).is_file():
        sys.exit(f'There is no checkpoint {path}.')


def load_model(cfg, checkpoint, device):
    """Build a model and load all of its weights.

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
        'Name the config that it was trained with, or put its settings after '
        'the checkpoint as KEY=VALUE.',
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
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in lines[1:] if line), lines[0])
        sys.exit(
            f'{checkpoint} does not fit {what}: '
            f'{textwrap.shorten(reason, 160, placeholder=" …")} {advice}'
        )


def test_dataset(cfg, **kwargs) -> BaseDataset:
    """Build the data of ``test_dataloader``, without wrappers and pipeline."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build({**dataset, 'pipeline': [], **kwargs})


def find_images(paths):
    """List images and those in folders.

    Returns:
        list[tuple[str, str]]: Name of each, relative to its folder and
        without suffix, and path.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob('*')
                if file.suffix.lower() in IMAGES
            )
            if not files:
                sys.exit(f'There is no image ({" ".join(IMAGES)}) in {path}.')
            found += [
                (file.relative_to(path).with_suffix('').as_posix(), str(file))
                for file in files
            ]
        elif path.is_file():
            found.append((path.stem, str(path)))
        else:
            sys.exit(f'There is no image or folder {path}.')
    return found


def read_image(path):
    """Read an image as OpenMMLab's pipelines do, but as RGB."""
    image = mmcv.imread(path)
    if image is None:
        sys.exit(f'{path}: expected an image, got what OpenCV cannot read.')
    return image[..., ::-1]
