"""Where ``type='mmsapa.…'`` of a config is looked up, from any scope."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

from mmengine import registry
from mmengine.registry import Registry

# Heads for MMSegmentation and necks for MMDetection: neither library needs
# the other, and a broken import of one that is there must be heard.
MODELS = Registry(
    'model',
    parent=registry.MODELS,
    scope='mmsapa',
    locations=[
        location
        for library, location in (
            ('mmcv', 'mmsapa.upsamplers'),
            ('mmseg', 'mmsapa.seg'),
            ('mmdet', 'mmsapa.det'),
        )
        if find_spec(library)
    ],
)
HOOKS = Registry(
    'hook',
    parent=registry.HOOKS,
    scope='mmsapa',
    locations=['mmsapa.visualization.hook'],
)
METRICS = Registry(
    'metric',
    parent=registry.METRICS,
    scope='mmsapa',
    locations=['mmsapa.evaluation'] if find_spec('mmseg') else [],
)


def register_upsample_layer(name: str) -> Callable[[type], type]:
    """Register a class as ``name``, where MMCV's own upsample layers are.

    A name that another package took first stays that package's; as
    ``mmsapa.name`` the class is found in any case.

    Args:
        name (str): As a config has it in ``type``.

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
