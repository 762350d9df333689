"""Items of test data with their ground truth."""

import copy
import functools
import sys
from collections import Counter
from pathlib import Path

import mmengine.fileio
from mmengine.registry import DATASETS, TRANSFORMS

from mmsapa.engine.config import leaf_datasets, library_of
from mmsapa.engine.images import Item, free_name
from mmsapa.engine.inference import (
    FAULTS,
    loads_annotations,
    scope_of,
    test_pipelines,
)
from mmsapa.visualization import Detections


def test_data(cfg):
    """Build the test loader's data set, with all that wraps it.

    Returns:
        Sequence[dict]: Items as they are before the pipeline; ``leaf`` is
        the number of the innermost data set that an item comes from.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        sys.exit(
            f'{cfg.filename}: expected test data, a test_dataloader, got '
            'none; name images.'
        )
    dataset = copy.deepcopy(loader['dataset'])
    for number, leaf in enumerate(leaf_datasets(dataset)):
        leaf['pipeline'] = [functools.partial(dict, leaf=number)]
    return build_data(cfg, 'test_dataloader', dataset)


def build_data(cfg, loader, dataset=None):
    """Build a loader's data set, or say in a sentence why it cannot be."""
    try:
        with scope_of(cfg):
            return DATASETS.build(dataset or cfg[loader].dataset)
    except FAULTS as error:
        sys.exit(
            f'{cfg.filename}: {loader} cannot be read: '
            f'{type(error).__name__}, {error}'
        )


def test_items(cfg, data, indices):
    """Items of the test data with their ground truth.

    Why it lacks, where it does, is said once.

    Args:
        cfg (Config): Whose test data they are.
        data (Sequence[dict]): Of :func:`test_data`.
        indices (Iterable[int]): Which of them.

    Returns:
        list[Item]: As many.
    """
    pipelines = test_pipelines(cfg)
    names, items, lacking = set(), [], Counter()
    for index in indices:
        info = data[index]
        pipeline = pipelines[info['leaf']].transforms
        if library_of(cfg) == 'mmseg':
            truth, why = label_map(cfg, info, pipeline)
        else:
            truth, why = instances(cfg, info, data)
        if why:
            lacking[why] += 1
        name = free_name(Path(info['img_path']).stem, names)
        backend_args = getattr(pipeline[0], 'backend_args', None)
        items.append(Item(name, info, truth, backend_args))
    for why, count in lacking.items():
        print(f'No ground truth is drawn for {count} of {len(items)}: {why}.')
    return items


def label_map(cfg, info, pipeline=()):
    """Read a label map as a pipeline does, reduce_zero_label and all.

    Args:
        cfg (Config): Of the library whose ``LoadAnnotations`` reads where
            the pipeline has none.
        info (dict): Of an item of the data set.
        pipeline (Sequence[Callable]): Its transforms.

    Returns:
        tuple[ndarray[H, W] | None, str]: Labels, or why there are none.
    """
    path = info.get('seg_map_path')
    if not path:
        return None, 'the test data name no label maps (seg_map_path)'
    loads = [step for step in pipeline if loads_annotations(step)]
    loads = loads or [loader_of(cfg)]
    backend_args = getattr(loads[0], 'backend_args', None)
    if not mmengine.fileio.exists(path, backend_args=backend_args):
        return None, f'there is no {path}'
    info = copy.deepcopy(info)
    try:
        for load in loads:
            info = load(info)
    except FAULTS as error:
        sys.exit(
            f'{path}: expected a label map (PNG), got what cannot be read: '
            f'{type(error).__name__}, {error}'
        )
    return info['gt_seg_map'], ''


def instances(cfg, info, data):
    """Read boxes, and masks where there are, that are to be found.

    Returns:
        tuple[Detections | None, str]: The same, or why there are none.
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


def loader_of(cfg, **kwargs):
    """The library's own LoadAnnotations."""
    with scope_of(cfg):
        return TRANSFORMS.build(dict(type='LoadAnnotations', **kwargs))
