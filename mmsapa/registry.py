"""Where ``type='mmsapa.…'`` of a config is looked up, from any scope."""

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
    locations=['mmsapa.seg'] if find_spec('mmseg') else [],
)
