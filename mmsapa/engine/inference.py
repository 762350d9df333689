"""Models that predict as ``tools/test.py`` has them predict."""

import argparse
import copy
import sys
from contextlib import suppress
from types import NoneType

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmsapa.engine.checkpoint import CheckpointError, load_weights, shorten
from mmsapa.engine.config import leaf_datasets, library_of
from mmsapa.engine.images import Unusable, read_image
from mmsapa.visualization import Detections

# What pipelines and models raise at images and settings that do not fit.
FAULTS = (
    *(AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, cv2.error),
)


def scope_of(cfg):
    """Within it, names of a config are looked up in its library."""
    return DefaultScope.overwrite_default_scope(library_of(cfg))


def device_of(text):
    """Take ``--device``: one that PyTorch can compute on."""
    try:
        torch.zeros(1, device=text).cpu()
    except (AssertionError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(
            f'expected a device of this machine such as cpu or cuda:0, got '
            f'{text}: {shorten(error)}'
        ) from None
    return text


# ---- models -----------------------------------------------------------------


def build_model(cfg):
    """Build a model as a runner does, without weights of its own."""
    model = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        with scope_of(cfg):
            return revert_sync_batchnorm(MODELS.build(model)).eval()
    except FAULTS as error:
        sys.exit(f'{cfg.filename}: its model cannot be built: {error}')


def load_model(cfg, checkpoint, device, option):
    """Build a model and load all of its weights.

    Args:
        cfg (Config): Of MMSegmentation or MMDetection.
        checkpoint (str): File or address.
        device (str): Where it shall run.
        option (str): How the tool is told settings of the config.

    Returns:
        nn.Module: In evaluation mode, for :func:`infer`; ``dataset_meta`` is
        what checkpoint and config know of the classes.
    """
    model = build_model(cfg)
    advice = (
        f'Name the config that it was trained with, or its settings {option}.'
    )
    try:
        loaded = load_weights(model, checkpoint, cfg.filename, advice)
    except CheckpointError as error:
        sys.exit(str(error))
    meta = loaded.get('meta') or {}
    model.dataset_meta = dict(meta.get('dataset_meta') or {})
    if not {'classes', 'palette'} <= model.dataset_meta.keys():
        model.dataset_meta = {**metainfo_of(cfg), **model.dataset_meta}
    model.cfg = cfg
    model.pipelines = test_pipelines(cfg)
    return model.to(device)


def metainfo_of(cfg):
    """What the config's data say of classes, whether they are there or not.

    Returns:
        dict: Of the first innermost data set that can be built; empty where
        there is none.
    """
    for name in ('test', 'val', 'train'):
        loader = cfg.get(f'{name}_dataloader') or {}
        for leaf in leaf_datasets(loader.get('dataset'))[:1]:
            lazy = {**leaf, 'pipeline': [], 'lazy_init': True}
            with scope_of(cfg), suppress(*FAULTS):
                return DATASETS.build(lazy).metainfo
    return {}


# ---- predictions ------------------------------------------------------------


def test_pipelines(cfg):
    """Build the pipelines by which ``tools/test.py`` reads images.

    Where a config tests nothing, those of the validation, or what it calls
    its test_pipeline, serve images of one's own.

    Returns:
        list[Compose]: Of each innermost data set of the loader.
    """
    for name in ('test_dataloader', 'val_dataloader'):
        leaves = leaf_datasets((cfg.get(name) or {}).get('dataset'))
        found = [leaf.get('pipeline', []) for leaf in leaves]
        if found:
            break
    else:
        if 'test_pipeline' not in cfg:
            sys.exit(
                f'{cfg.filename}: expected a pipeline for images, as '
                'test_dataloader.dataset.pipeline, got none.'
            )
        found = [cfg.test_pipeline]
    try:
        with scope_of(cfg):
            return [Compose(pipeline) for pipeline in found]
    except FAULTS as error:
        sys.exit(f'{cfg.filename}: its test pipeline cannot be built: {error}')


def loads_annotations(transform):
    """Whether it is LoadAnnotations or one of its kind."""
    return 'Annotation' in type(transform).__name__


def infer(model, item):
    """Run a model of :func:`load_model` on an image.

    Returns:
        SegDataSample | DetDataSample: What it predicts.

    Raises:
        Unusable: If pipeline or model cannot take the image.
    """
    # Test data of the first model's config, through each model's pipeline.
    leaf = item.info.get('leaf', 0)
    pipeline = model.pipelines[leaf if leaf < len(model.pipelines) else 0]
    data = copy.deepcopy(item.info)
    try:
        with scope_of(model.cfg), torch.no_grad():
            for transform in pipeline.transforms:
                if not loads_annotations(transform):
                    data = transform(data)
            return model.test_step(pseudo_collate([data]))[0]
    except FAULTS as error:
        # Most models need images of some size, and all have some limit.
        height, width = read_image(item).shape[:2]
        raise Unusable(
            f'{model.cfg.filename} cannot take {item.path} of {width} x '
            f'{height} pixels: {type(error).__name__}, {shorten(error)}'
        ) from error


def legend_of(meta, library):
    """Colours and names of the classes, in the order of their labels.

    Args:
        meta (dict): ``classes``, and a ``palette`` or one that is always the
            same.
        library (str): Of the model.

    Returns:
        tuple[Sequence, list[str]]: RGB of each, and the names.
    """
    classes, palette = [*meta['classes']], meta.get('palette')
    if isinstance(palette, (str, NoneType)) or len(palette) != len(classes):
        palette = np.random.default_rng(0).integers(0, 256, (len(classes), 3))
    if library == 'mmseg' and len(classes) == 1:
        # Its threshold makes label 1 of it, and 0 of what is around.
        around = 3 * [255 if sum(palette[0]) < 384 else 0]
        return [around, *palette], ['background', *classes]
    return palette, classes


def predict(model, item, score_thr):
    """What a model makes of an image.

    Returns:
        np.ndarray | Detections: Labels [H, W], or detections of a score of
        at least ``score_thr``.

    Raises:
        Unusable: If it cannot take the image.
    """
    sample = infer(model, item)
    kind = 'pred_instances'
    if library_of(model.cfg) == 'mmseg':
        kind = 'pred_sem_seg'
    if kind not in sample:
        sys.exit(
            f'{model.cfg.filename}: expected a model that predicts {kind}, '
            f'got {", ".join(sample.keys())}.'
        )
    if kind == 'pred_sem_seg':
        # With one output channel they are floats.
        return sample.pred_sem_seg.data[0].long().cpu().numpy()
    found = sample.pred_instances.cpu()
    found = found[found.scores >= score_thr]
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    masks = found.masks.numpy() if 'masks' in found else None
    return Detections(boxes.numpy(), found.labels.numpy(), masks)
