"""The upsample layers for OpenMMLab: registered, and with ``init_cfg``.

Importing this module registers ``sapa``, ``fade``, ``a2u``, ``indexnet``,
``dysample`` and ``max_unpool``, so that
``mmcv.cnn.build_upsample_layer(dict(type='sapa', …))`` builds them.
``carafe`` is MMCV's own name there, and ours ``mmsapa.carafe``. It needs
mmengine; neither mmcv nor anything compiled.

The libraries' own tools and inference, which then find these layers, can read
mmengine's training checkpoints, too, with PyTorch 2.6 and newer.

``import mmsapa`` imports this module if mmengine was imported before, as it
is where a config's ``custom_imports`` are the first to name ``mmsapa``.
"""

import copy
import inspect

import torch.nn as nn
from mmengine.model import BaseModule

from . import upsamplers
from .registry import MODELS, register_upsample_layer
from .training_checkpoints import allow_training_checkpoints


def _with_init_cfg(layer: type[nn.Module]) -> type[nn.Module]:
    """Derive a layer that takes ``init_cfg``, as a BaseModule does.

    Name, documentation, parameters and state dict are the layer's own.
    """

    def __init__(self, *args, init_cfg: dict | None = None, **kwargs):
        layer.__init__(self, *args, **kwargs)
        self.init_cfg = copy.deepcopy(init_cfg)

    def init_weights(self):
        """Initialize as the authors do, then by ``init_cfg`` if given."""
        layer.init_weights(self)
        if self.init_cfg:
            BaseModule.init_weights(self)

    # The slot fills in what a layer's signature asks for.
    signature = inspect.signature(layer.__init__)
    added = inspect.signature(__init__).parameters['init_cfg']
    __init__.__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), added]
    )
    # BaseModule comes after the layer and before nn.Module, so that the layer
    # computes and mmengine finds what it asks of a module.
    return type(
        layer.__name__,
        (layer, BaseModule),
        dict(
            __module__=__name__,
            __doc__=layer.__doc__,
            __init__=__init__,
            init_weights=init_weights,
        ),
    )


def _register(name, layer):
    return register_upsample_layer(name)(_with_init_cfg(layer))


# Under names of this module, by which pickle finds them.
SAPA = _register('sapa', upsamplers.SAPA)
FADE = _register('fade', upsamplers.FADE)
A2U = _register('a2u', upsamplers.A2U)
IndexNet = _register('indexnet', upsamplers.IndexNet)
DySample = _register('dysample', upsamplers.DySample)
MaxUnpool = _register('max_unpool', upsamplers.MaxUnpool)
CARAFE = _with_init_cfg(upsamplers.CARAFE)
# MMCV registers this name when its operators are imported, and would fail.
MODELS.register_module('carafe', module=CARAFE)
allow_training_checkpoints()
