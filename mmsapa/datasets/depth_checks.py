"""Checks of depth maps before the first iteration."""

import copy
import math

from mmsapa.engine.config import ConfigError


def check_depth_maps(split, head, dataset, infos):
    """Check that samples of a data set hold depth for a head to learn.

    The pipeline runs as far as it loads depth maps. What
    ``mmsapa.LoadDepthAnnotation`` finds wrong is raised, too.

    Args:
        split (str): 'train', 'val' or 'test'.
        head (nn.Module | None): Its ``max_depth``, if any, is the largest
            depth in meters that it predicts.
        dataset (BaseDataset): Without wrappers.
        infos (list[dict]): Items before the pipeline.

    Raises:
        ConfigError: No depth map has values that the head can predict, or
            one cannot be read.
    """
    infos = [info for info in infos if info.get('depth_map_path')]
    steps = _steps_to_depth(dataset)
    if not infos or not steps:
        return
    most = getattr(head, 'max_depth', math.inf)
    found, shallowest, deepest = False, math.inf, -math.inf
    for info in infos:
        info = copy.deepcopy(info)
        try:
            for step in steps:
                info = step(info)
            depth = info['gt_depth_map']
        except (AttributeError, KeyError, TypeError):
            return  # a user's loader, which needs more than the item
        found = found or ((depth > 0) & (depth <= most)).any()
        shallowest = min(shallowest, depth.min())
        deepest = max(deepest, depth.max())
    if not found:
        raise ConfigError(
            f'{infos[0]["depth_map_path"]} and the other depth maps looked '
            f'at in {split}_dataloader hold values from {shallowest:g} to '
            f'{deepest:g}, but expected are meters above 0 and up to '
            f"{most:g}, the head's max_depth; set depth_rescale_factor, the "
            'meters of a step, of the transform that loads them (1e-3 for '
            'millimeters).'
        )


def _steps_to_depth(dataset):
    """The transforms up to the one that loads depth maps; [] without one."""
    steps = getattr(dataset.pipeline, 'transforms', ())
    for number, step in enumerate(steps, 1):
        # By name, since detection does not need MMSegmentation.
        for base in type(step).__mro__:
            library = base.__module__.partition('.')[0]
            if (library, base.__name__) == ('mmseg', 'LoadDepthAnnotation'):
                return steps[:number]
    return []
