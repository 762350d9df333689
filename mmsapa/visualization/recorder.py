"""Recording the inputs and outputs of a model's SAPA layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..upsamplers import SAPA


class Stage(NamedTuple):
    """One call of a SAPA layer, for one image.

    Attributes:
        name (str): The layer's in its model.
        scale_factor (int): The layer's.
        guide (Tensor[Cg, Hq, Wq]): Encoder feature, float32, as all others.
        x (Tensor[C, H, W]): Decoder feature.
        kernels (Tensor[K * K, Hq, Wq]): Upsampling kernels, row by row.
        out (Tensor[C, Hq, Wq]): The upsampled ``x``.
    """

    name: str
    scale_factor: int
    guide: Tensor
    x: Tensor
    kernels: Tensor
    out: Tensor


class Recording:
    """The result of :func:`record`.

    Attributes:
        image (np.ndarray | None): RGB, uint8, [H, W, 3], resized, padded and
            cropped as the model's backbone got it; None if the model has no
            backbone or data preprocessor, or has not run.
        stages (list[Stage]): In the order of their calls.
    """

    def __init__(self):
        self.image = None
        self.stages = []


@contextmanager
def record(
    model: nn.Module, stages: Sequence[str] | str | None = None
) -> Iterator[Recording]:
    """Record the first image that a model of OpenMMLab runs on.

    The model does not change: hooks observe its forward, and the kernels are
    computed again from the layers' inputs, without gradients. An error in
    that is raised at the end, not within the model.

    Args:
        model (nn.Module): A model with SAPA layers.
        stages (Sequence[str] | str, optional): Names, or parts of names, of
            the layers to record. Default: all.

    Yields:
        Recording: Complete when the model has run.

    Raises:
        ValueError: If no SAPA layer has such a name.
    """
    layers = find_stages(model, stages)
    preprocessor = _preprocessor(model)
    recording = Recording()
    seen, errors = set(), []

    def once(key, keep, *arguments):
        # A sliding window, or a detector of several images, calls it again.
        if key not in seen:
            seen.add(key)
            try:
                keep(*arguments)
            except Exception as error:
                errors.append(error)

    def keep_image(inputs):
        recording.image = _image(inputs[0][0], preprocessor)

    def keep_stage(*arguments):
        recording.stages.append(_stage(*arguments))

    def watch_backbone(module, args, kwargs):
        once('image', keep_image, (*args, *kwargs.values()))

    def watch_layer(name, layer, args, kwargs, out):
        inputs = signature(layer.forward).bind(*args, **kwargs).args
        once(name, keep_stage, name, layer, *inputs, out)

    hooks = [
        layer.register_forward_hook(
            partial(watch_layer, name), with_kwargs=True
        )
        for name, layer in layers.items()
    ]
    if preprocessor is not None:
        hooks += [
            module.register_forward_pre_hook(watch_backbone, with_kwargs=True)
            for name, module in model.named_modules()
            if name.split('.')[-1] == 'backbone'
        ]
    try:
        yield recording
    finally:
        for hook in hooks:
            hook.remove()
    if errors:
        raise errors[0]


def find_stages(
    model: nn.Module, stages: Sequence[str] | str | None = None
) -> dict[str, SAPA]:
    """Find the SAPA layers of a model by their names.

    Args:
        model (nn.Module): Any.
        stages (Sequence[str] | str, optional): Names or parts of names.
            Default: all.

    Returns:
        dict[str, SAPA]: In the order that the model lists them.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(stages, str):
        stages = [stages]
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SAPA)
    }
    if not found:
        raise ValueError(
            f'{type(model).__name__}: expected a model with SAPA layers, got '
            "one without; write upsample_cfg=dict(type='sapa') into a slot "
            'of its config.'
        )
    chosen = {
        name: layer
        for name, layer in found.items()
        if stages is None or any(part in name for part in stages)
    }
    if not chosen:
        raise ValueError(
            f'stages: expected parts of {", ".join(found)}, got '
            f'{", ".join(stages)}.'
        )
    return chosen


@torch.no_grad()
def _stage(name, layer, x, guide, out):
    x, guide = x[:1].detach(), guide[:1].detach()
    with torch.autocast(x.device.type, enabled=False):
        layer_type = next(layer.parameters()).dtype
        kernels = layer.kernels(x.to(layer_type), guide.to(layer_type))
    # Copies, since the model may change its own tensors in place.
    maps = (
        tensor[0].detach().to('cpu', torch.float32, copy=True)
        for tensor in (guide, x, kernels, out)
    )
    return Stage(name, layer.scale_factor, *maps)


def _preprocessor(model):
    """The data preprocessor that normalizes, nested or not."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, BaseDataPreprocessor)
    ]
    return max(found, key=lambda module: hasattr(module, 'mean'), default=None)


def _image(image, preprocessor):
    """Undo the normalization of a backbone's input of any channels."""
    image = image.detach().float()
    if hasattr(preprocessor, 'mean'):
        mean, std = preprocessor.mean, preprocessor.std
        if len(mean) > 1:
            image = image[: len(mean)]  # a mattor's has a trimap, too
        image = image * std + mean
    # Of MMDetection, MMSegmentation and mattors.
    names = '_channel_conversion', 'channel_conversion', 'bgr_to_rgb'
    converted = any(getattr(preprocessor, name, False) for name in names)
    image = (image if len(image) >= 3 else image[:1].expand(3, -1, -1))[:3]
    if not converted:
        # OpenMMLab loads images as BGR.
        image = image.flip(0)
    image = image.round().clamp(0, 255).to('cpu', torch.uint8)
    return image.permute(1, 2, 0).numpy()
