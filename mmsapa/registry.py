"""Registries in which a config's ``type='mmsapa.…'`` is looked up.

mmengine imports this module for such a name, under any default scope.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

from mmengine import registry
from mmengine.registry import Registry

# Heads for MMSegmentation and necks for MMDetection: neither library needs
# the other, and errors when importing an installed library propagate.
MODELS = Registry(
    'model',
    parent=registry.MODELS,
    scope='mmsapa',
    locations=[
        'mmsapa.openmmlab',
        'mmsapa.matting',
        *(
            location
            for library, location in (
                ('mmseg', 'mmsapa.seg'),
                ('mmseg', 'mmsapa.depth'),
                ('mmdet', 'mmsapa.det'),
            )
            if find_spec(library)
        ),
    ],
)
HOOKS = Registry(
    'hook',
    parent=registry.HOOKS,
    scope='mmsapa',
    locations=[
        'mmsapa.visualization.hook',
        'mmsapa.visualization.statistics_hook',
        'mmsapa.visualization.matting_visualizer',
    ],
)
VISUALIZERS = Registry(
    'visualizer',
    parent=registry.VISUALIZERS,
    scope='mmsapa',
    locations=[
        'mmsapa.visualization.depth_visualizer',
        'mmsapa.visualization.matting_visualizer',
    ],
)
METRICS = Registry(
    'metric',
    parent=registry.METRICS,
    scope='mmsapa',
    locations=[
        'mmsapa.evaluation.matting_metric',
        *(['mmsapa.evaluation'] if find_spec('mmseg') else []),
    ],
)
DATASETS = Registry(
    'dataset',
    parent=registry.DATASETS,
    scope='mmsapa',
    locations=[
        'mmsapa.datasets.composition1k',
        *(
            ['mmsapa.datasets.nyu', 'mmsapa.datasets.photographs']
            if find_spec('mmseg')
            else []
        ),
    ],
)
TRANSFORMS = Registry(
    'transform',
    parent=registry.TRANSFORMS,
    scope='mmsapa',
    locations=[
        'mmsapa.datasets.foreground_transforms',
        'mmsapa.datasets.matting_loading',
        'mmsapa.datasets.matting_transforms',
        *(['mmsapa.datasets.depth_transforms'] if find_spec('mmseg') else []),
    ],
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=registry.OPTIM_WRAPPERS,
    scope='mmsapa',
    locations=['mmsapa.engine.cpu_amp'],
)
# Where default_scope is mmsapa, mmengine asks for a registry of each kind and
# finds its own things from there.
for _root in vars(registry).values():
    if isinstance(_root, Registry) and 'mmsapa' not in _root.children:
        Registry(_root.name, parent=_root, scope='mmsapa')


def register_upsample_layer(name: str) -> Callable[[type], type]:
    """Register a class as ``name`` among MMCV's upsample layers.

    A name that another package registered first stays with that package;
    the class is found as ``mmsapa.name`` in any case.

    Args:
        name (str): Value of ``type`` in a config.

    Returns:
        Callable: Decorator of the class.
    """

    def register(layer):
        MODELS.register_module(name, module=layer)
        taken = registry.MODELS.module_dict.get(name)
        if taken is None:
            registry.MODELS.register_module(name, module=layer)
        else:
            warnings.warn(
                f'mmsapa: type={name!r} is {taken.__module__}.'
                f"{taken.__qualname__} already and stays so; mmsapa's is "
                f"type='mmsapa.{name}'.",
                stacklevel=2,
            )
        return layer

    return register
