"""Models that predict on images as ``tools/test.py`` has them predict."""

import argparse
import copy
from contextlib import contextmanager, suppress
from types import NoneType

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmsapa.engine.checkpoint import load_weights, shorten
from mmsapa.engine.config import (
    ConfigError,
    find_slots,
    kind_of,
    leaf_datasets,
    library_of,
    type_name,
)
from mmsapa.engine.images import ImageError, read_image
from mmsapa.errors import UserError
from mmsapa.visualization import Detections

# What pipelines and models raise at images and settings that do not fit.
FAULTS = (
    *(AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, cv2.error),
)


def scope_of(cfg):
    """Context in which names of a config are looked up in its library."""
    return DefaultScope.overwrite_default_scope(library_of(cfg))


def device_of(text):
    """Parse the argument ``--device`` for argparse."""
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
    """Build a model as a runner does, with random weights.

    Args:
        cfg (Config): Of one of the libraries.

    Returns:
        nn.Module: In evaluation mode, without synchronized batch norms.

    Raises:
        ConfigError: If it cannot be built.
    """
    model = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        with scope_of(cfg):
            return revert_sync_batchnorm(MODELS.build(model)).eval()
    except FAULTS as error:
        raise ConfigError(
            f'{cfg.filename}: its model cannot be built: {error}'
        ) from error


def load_model(cfg, checkpoint, device, option):
    """Build a model and load all of its weights.

    Args:
        cfg (Config): Of one of the libraries.
        checkpoint (str): File or address.
        device (str): Where to run it.
        option (str): How a tool's user overrides settings of the config, for
            the message of an error.

    Returns:
        nn.Module: In evaluation mode, for :func:`infer`; ``dataset_meta`` is
        what checkpoint and config say of the classes.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        ConfigError: If model or test pipeline cannot be built.
    """
    model = build_model(cfg)
    advice = (
        f'Name the config that it was trained with, or its settings {option}.'
    )
    loaded = load_weights(model, checkpoint, cfg.filename, advice)
    meta = loaded.get('meta') or {}
    model.dataset_meta = dict(meta.get('dataset_meta') or {})
    if not {'classes', 'palette'} <= model.dataset_meta.keys():
        model.dataset_meta = {**metainfo_of(cfg), **model.dataset_meta}
    model.cfg = cfg
    model.pipelines = test_pipelines(cfg)
    return model.to(device)


def metainfo_of(cfg):
    """Read the classes of the config's data sets, which may be missing.

    Returns:
        dict: Metainfo of the first innermost data set that can be built;
        empty if there is none.
    """
    for name in ('test', 'val', 'train'):
        loader = cfg.get(f'{name}_dataloader') or {}
        for leaf in leaf_datasets(loader.get('dataset'))[:1]:
            lazy = {**leaf, 'pipeline': [], 'lazy_init': True}
            with scope_of(cfg), suppress(*FAULTS):
                return DATASETS.build(lazy).metainfo
    return {}


def upsampler_of(cfg):
    """Name the upsampler of a model.

    Args:
        cfg (Config): Of one of the libraries.

    Returns:
        str: Type of the first ``upsample_cfg``, such as 'carafe', for SAPA
        with its variant, such as 'SAPA-G'; 'baseline' if there is none.
    """
    slots = (slot['upsample_cfg'] for slot in find_slots(cfg.model))
    found = next(filter(None, slots), None)
    if found is None:
        return 'baseline'
    name = type_name(found)
    if name.lower() == 'sapa':
        return f'SAPA-{found.get("variant", "G")}'
    return name


def check_classes(models):
    """Check that the classes of all models are known and the same.

    Args:
        models (dict[str, nn.Module]): Of :func:`load_model`.

    Raises:
        ConfigError: If they are not.
    """
    found = {
        name: tuple(model.dataset_meta.get('classes') or ())
        for name, model in models.items()
    }
    first, expected = next(iter(found.items()))
    for name, classes in found.items():
        if not classes:
            raise ConfigError(
                f'Expected the names of the classes in the checkpoint of '
                f'{name} or in the data of its config, got neither.'
            )
        if classes != expected:
            raise ConfigError(
                f'Expected the same classes in all models, got '
                f'{first_few(expected)} in {first} and {first_few(classes)} '
                f'in {name}.'
            )


def first_few(words):
    """List the first four words, and how many there are."""
    more = f', … ({len(words)})' if len(words) > 4 else ''
    return ', '.join(map(str, words[:4])) + more


# ---- predictions ------------------------------------------------------------


def test_pipelines(cfg):
    """Build the pipelines by which ``tools/test.py`` reads images.

    Without test data, those of the validation are used, or the config's
    ``test_pipeline``.

    Args:
        cfg (Config): Of one of the libraries.

    Returns:
        list[Compose]: Of each innermost data set of the loader.

    Raises:
        ConfigError: If there is none, or it cannot be built.
    """
    for name in ('test_dataloader', 'val_dataloader'):
        leaves = leaf_datasets((cfg.get(name) or {}).get('dataset'))
        found = [leaf.get('pipeline', []) for leaf in leaves]
        if found:
            break
    else:
        if 'test_pipeline' not in cfg:
            raise ConfigError(
                f'{cfg.filename}: expected a pipeline for images, as '
                'test_dataloader.dataset.pipeline, got none.'
            )
        found = [cfg.test_pipeline]
    try:
        with scope_of(cfg):
            return [Compose(pipeline) for pipeline in found]
    except FAULTS as error:
        raise ConfigError(
            f'{cfg.filename}: its test pipeline cannot be built: {error}'
        ) from error


def loads_annotations(transform):
    """Whether a transform is LoadAnnotations or one of its kind."""
    name = type(transform).__name__
    return 'Annotation' in name or 'LoadAlpha' in name


def infer(model, item):
    """Run a model on an image.

    Args:
        model (nn.Module): Of :func:`load_model`.
        item (Item): The image.

    Returns:
        SegDataSample | DetDataSample | MattingDataSample: What it predicts.

    Raises:
        ImageError: If pipeline or model cannot take the image.
    """
    with _faults_explained(model, item):
        return model.test_step(_read(model, item))[0]


def preprocess(model, item):
    """Read and normalize an image as for :func:`infer`.

    Args:
        model (nn.Module): Of :func:`load_model`.
        item (Item): The image.

    Returns:
        Tensor[1, C, H, W]: What the model's first layer gets.

    Raises:
        ImageError: If pipeline or preprocessor cannot take the image.
    """
    with _faults_explained(model, item):
        return model.data_preprocessor(_read(model, item), False)['inputs']


def _read(model, item):
    """Read an image by the pipeline, as a batch of one."""
    # Test data is that of the first model's config, but each model reads it
    # by its own pipeline.
    leaf = item.info.get('leaf', 0)
    pipeline = model.pipelines[leaf if leaf < len(model.pipelines) else 0]
    data = copy.deepcopy(item.info)
    for transform in pipeline.transforms:
        if not loads_annotations(transform):
            data = transform(data)
    return pseudo_collate([data])


@contextmanager
def _faults_explained(model, item):
    try:
        with scope_of(model.cfg), torch.no_grad():
            yield
    except UserError as error:  # it says what to do
        raise ImageError(str(error)) from error
    except FAULTS as error:
        # Most models need images of some size, and all have some limit.
        height, width = read_image(item).shape[:2]
        raise ImageError(
            f'{model.cfg.filename} cannot take {item.path} of {width} x '
            f'{height} pixels: {type(error).__name__}, {shorten(error)}'
        ) from error


def legend_of(meta, kind):
    """Colors and names of the classes, in the order of their labels.

    Args:
        meta (dict): ``classes``, and a ``palette``; without one, random
            colors that are always the same.
        kind (str): Of the model, by :func:`kind_of`.

    Returns:
        tuple[Sequence, list[str] | None]: RGB of each, and the names; of
        depth and mattes, which have no classes, () and None.
    """
    if kind in ('depth estimator', 'mattor'):
        return (), None
    classes, palette = [*meta['classes']], meta.get('palette')
    if isinstance(palette, (str, NoneType)) or len(palette) != len(classes):
        palette = np.random.default_rng(0).integers(0, 256, (len(classes), 3))
    if kind == 'segmentor' and len(classes) == 1:
        # Its threshold makes label 1 of it, and 0 of what is around.
        around = 3 * [255 if sum(palette[0]) < 384 else 0]
        return [around, *palette], ['background', *classes]
    return palette, classes


def predict(model, item, score_thr):
    """Predict labels, depth, a matte or detections for an image.

    Args:
        model (nn.Module): Of :func:`load_model`.
        item (Item): The image.
        score_thr (float): Least score of detections.

    Returns:
        np.ndarray | Detections: Labels [H, W], integers; depth [H, W],
        float32, in meters; a matte [H, W], float32 from 0 to 1; or
        detections.

    Raises:
        ImageError: If the model cannot take the image.
        ConfigError: If it predicts something else.
    """
    sample = infer(model, item)
    kind = {
        'detector': 'pred_instances',
        'depth estimator': 'pred_depth_map',
        'mattor': 'pred_alpha',
        'segmentor': 'pred_sem_seg',
    }[kind_of(model.cfg)]
    if kind not in sample:
        raise ConfigError(
            f'{model.cfg.filename}: expected a model that predicts {kind}, '
            f'got {", ".join(sample.keys())}.'
        )
    if kind == 'pred_sem_seg':
        # With one output channel they are floats.
        return sample.pred_sem_seg.data[0].long().cpu().numpy()
    if kind in ('pred_depth_map', 'pred_alpha'):
        return sample.get(kind).data[0].float().cpu().numpy()
    found = sample.pred_instances.cpu()
    found = found[found.scores >= score_thr]
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    masks = found.masks.numpy() if 'masks' in found else None
    return Detections(boxes.numpy(), found.labels.numpy(), masks)
