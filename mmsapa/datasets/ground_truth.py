"""Items of test data, and images, with their ground truth."""

import copy
import functools
from pathlib import Path

import mmengine.fileio
from mmengine.registry import DATASETS, TRANSFORMS

from mmsapa.datasets.matting_loading import read_gray
from mmsapa.engine.config import ConfigError, kind_of, leaf_datasets
from mmsapa.engine.images import (
    IMAGES,
    ImageError,
    Item,
    find_file,
    free_name,
)
from mmsapa.engine.inference import (
    FAULTS,
    first_few,
    loads_annotations,
    metainfo_of,
    scope_of,
    test_pipelines,
)
from mmsapa.visualization import Detections

# Of each kind of map: its name, the keys of its path and of what is loaded,
# and what loads it if the pipeline does not.
_MAPS = {
    'segmentor': ('label', 'seg_map', 'gt_seg_map', 'LoadAnnotations'),
    'depth estimator': (
        *('depth', 'depth_map', 'gt_depth_map'),
        'mmsapa.LoadDepthAnnotation',
    ),
    'mattor': ('true alpha', 'alpha', 'alpha', 'mmsapa.LoadAlpha'),
}


def test_data(cfg):
    """Build the test loader's data set, with its wrappers.

    Args:
        cfg (Config): Of MMSegmentation or MMDetection.

    Returns:
        Sequence[dict]: Items as they are before the pipeline; ``leaf`` is
        the number of the innermost data set that an item comes from.

    Raises:
        ConfigError: If there is no test data, or it cannot be built.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        raise ConfigError(
            f'{cfg.filename}: expected test data, a test_dataloader, got '
            'none; name images.'
        )
    dataset = copy.deepcopy(loader['dataset'])
    for number, leaf in enumerate(leaf_datasets(dataset)):
        leaf['pipeline'] = [functools.partial(dict, leaf=number)]
    return build_data(cfg, 'test_dataloader', dataset)


def build_data(cfg, loader, dataset=None):
    """Build a loader's data set.

    Args:
        cfg (Config): Of MMSegmentation or MMDetection.
        loader (str): Name, such as 'test_dataloader'.
        dataset (dict, optional): Config. Default: the loader's.

    Returns:
        Sequence[dict]: The data set.

    Raises:
        ConfigError: If it cannot be built.
    """
    try:
        with scope_of(cfg):
            return DATASETS.build(dataset or cfg[loader].dataset)
    except FAULTS as error:
        raise ConfigError(
            f'{cfg.filename}: {loader} cannot be read: '
            f'{type(error).__name__}, {error}'
        ) from error


def test_items(cfg, data, indices):
    """Read items of the test data with their ground truth.

    Args:
        cfg (Config): Of the test data.
        data (Sequence[dict]): Of :func:`test_data`.
        indices (Iterable[int]): Which of them.

    Returns:
        list[Item]: One for each index; ``lacking`` says why one has no
        ground truth.

    Raises:
        ConfigError: If the test pipeline cannot be built, or a depth map
            cannot be read.
        ImageError: If a label map cannot be read.
    """
    pipelines = test_pipelines(cfg)
    names, items = set(), []
    for index in indices:
        info = data[index]
        pipeline = pipelines[info['leaf']].transforms
        if kind_of(cfg) == 'detector':
            found, lacking = instances(cfg, info, data)
        else:
            found, lacking = true_map(cfg, info, pipeline)
        name = free_name(Path(info['img_path']).stem, names)
        backend_args = getattr(pipeline[0], 'backend_args', None)
        items.append(Item(name, info, found, backend_args, lacking=lacking))
    return items


def add_maps(cfg, items, folder):
    """Read the label, depth or alpha maps of images from a folder.

    Args:
        cfg (Config): Its data set says what labels mean, its test pipeline
            the units of depth.
        items (Sequence[Item]): Images.
        folder (str | Path): Has a PNG file of the name of each image.

    Returns:
        list[Item]: The images with their ground truth.

    Raises:
        ConfigError: If the config is for detectors.
        ImageError: If a map does not exist or cannot be read, or would be
            that of two images.
    """
    if kind_of(cfg) == 'detector':
        raise ConfigError(
            '--ground-truth: expected models that predict maps, got '
            "detectors; leave images out to draw the config's test data with "
            'its ground truth.'
        )
    meta = metainfo_of(cfg)
    pipeline = ()
    # What a step of depth is, the test pipeline alone says.
    if kind_of(cfg) == 'depth estimator':
        pipeline = test_pipelines(cfg)[0].transforms
    found = []
    places = _find_files(items, folder, 'ground truth')
    for item, place in zip(items, places):
        info = dict(
            seg_map_path=place,
            depth_map_path=place,
            alpha_path=place,
            reduce_zero_label=meta.get('reduce_zero_label'),
            label_map=meta.get('label_map'),
            seg_fields=[],
        )
        labels, _ = true_map(cfg, info, pipeline)
        found.append(item._replace(ground_truth=labels))
    return found


def add_trimaps(cfg, items, folder):
    """Name the trimaps of images, which mattors need.

    Args:
        cfg (Config): Of the model.
        items (Sequence[Item]): Images.
        folder (str | Path | None): Has an image of the name of each.

    Returns:
        list[Item]: The images with ``trimap_path``; for other models as they
        came.

    Raises:
        ConfigError: If the model is a mattor and there is no folder, or the
            other way round.
        ImageError: If a trimap does not exist, or would be that of two
            images.
    """
    kind = kind_of(cfg)
    if kind != 'mattor':
        if folder is not None:
            raise ConfigError(
                f'--trimaps: expected a mattor, got a {kind}; leave it out.'
            )
        return items
    if folder is None:
        raise ConfigError(
            'Expected a trimap for each image, which a mattor needs, got '
            'none; name their folder by --trimaps.'
        )
    paths = _find_files(items, folder, 'trimap', ('.png', *IMAGES))
    return [
        item._replace(info=dict(item.info, trimap_path=path))
        for item, path in zip(items, paths)
    ]


def _find_files(items, folder, *args):
    """Find the file of each image; raise if one belongs to two."""
    paths = [find_file(item, folder, *args) for item in items]
    images = {}
    for item, path in zip(items, paths):
        other = images.setdefault(path, item.path)
        if other != item.path:
            raise ImageError(
                f'{path} would belong to {other} and {item.path}; draw them '
                'one by one, or give their files different names.'
            )
    return paths


def read_trimap(item):
    """Read the trimap of an image, which those for mattors have.

    Args:
        item (Item): Of :func:`add_trimaps` or of test data.

    Returns:
        np.ndarray | None: uint8, [H, W].

    Raises:
        ConfigError: If it cannot be read.
    """
    path = item.info.get('trimap_path')
    return path and read_gray(path)


def check_ground_truth(cfg, items, classes):
    """Check that ground truth and models have the same classes.

    Args:
        cfg (Config): Of the data.
        items (Sequence[Item]): Images.
        classes (Sequence[str]): Of the models.

    Raises:
        ConfigError: If they differ, and there is ground truth.
    """
    known, classes = tuple(metainfo_of(cfg).get('classes') or ()), (*classes,)
    if known not in ((), classes) and any(
        item.ground_truth is not None for item in items
    ):
        raise ConfigError(
            f'Expected the classes of the models, {first_few(classes)}, in '
            f'the data of {cfg.filename} too, got {first_few(known)}; name '
            'the config that was trained, or images without --ground-truth.'
        )


def true_map(cfg, info, pipeline=()):
    """Read labels, with reduce_zero_label, depth or alpha as a pipeline does.

    Args:
        cfg (Config): Of a model that predicts maps, whose library reads the
            map if the pipeline does not.
        info (dict): Of an item of the data set.
        pipeline (Sequence[Callable]): Its transforms.

    Returns:
        tuple[ndarray[H, W] | None, str]: Labels, depth in meters or alpha
        from 0 to 1, or why there are none.

    Raises:
        ImageError: If the file cannot be read.
    """
    what, key, loaded, loader = _MAPS[kind_of(cfg)]
    path = info.get(f'{key}_path')
    if not path:
        return None, f'the test data name no {what} maps ({key}_path)'
    loads = [step for step in pipeline if loads_annotations(step)]
    loads = loads or [loader_of(cfg, loader)]
    backend_args = getattr(loads[0], 'backend_args', None)
    if not mmengine.fileio.exists(path, backend_args=backend_args):
        return None, f'there is no {path}'
    info = copy.deepcopy(info)
    try:
        for load in loads:
            info = load(info)
    except ConfigError:
        raise  # it says what was expected
    except FAULTS as error:
        raise ImageError(
            f'{path}: expected a {what} map (PNG), got what cannot be read: '
            f'{type(error).__name__}, {error}'
        ) from error
    return info[loaded], ''


def instances(cfg, info, data):
    """Read the boxes, and masks if any, of the objects to find.

    Args:
        cfg (Config): Of MMDetection.
        info (dict): Of an item of the data set.
        data (Sequence[dict]): The data set.

    Returns:
        tuple[Detections | None, str]: Objects, or why there are none.
    """
    objects = info.get('instances') or []
    if not objects and not any(
        other['leaf'] == info['leaf'] and other.get('instances')
        for other in (data[index] for index in range(len(data)))
    ):
        return None, 'no image of the test data has annotations'
    masked = all('mask' in item for item in objects)
    size = info['height'], info['width']
    load = loader_of(cfg, with_mask=masked, box_type=None)
    found = load(dict(info, ori_shape=size))
    wanted = ~found['gt_ignore_flags']
    masks = found['gt_masks'].masks[wanted] if masked else None
    return Detections(
        found['gt_bboxes'][wanted], found['gt_bboxes_labels'][wanted], masks
    ), ''


def loader_of(cfg, kind='LoadAnnotations', **kwargs):
    """Build a transform that loads annotations, such as the library's own."""
    with scope_of(cfg):
        return TRANSFORMS.build(dict(type=kind, **kwargs))
