"""What goes into a model's SAPA layers, and what comes out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..upsamplers import SAPA


class Stage(NamedTuple):
    """One call of a SAPA layer, for one image.

    Attributes:
        name (str): The layer's in its model.
        guide (Tensor[Cg, Hq, Wq]): Encoder feature, float32, as all others.
        x (Tensor[C, H, W]): Decoder feature.
        kernels (Tensor[K * K, Hq, Wq]): Upsampling kernels, row by row.
        out (Tensor[C, Hq, Wq]): The upsampled ``x``.
    """

    name: str
    guide: Tensor
    x: Tensor
    kernels: Tensor
    out: Tensor


class Recording:
    """What :func:`record` has seen.

    Attributes:
        image (np.ndarray | None): RGB, uint8, [H, W, 3], padded as the model
            had it; None before the model has run.
        stages (list[Stage]): In the order of their calls.
    """

    def __init__(self):
        self.image = None
        self.stages = []


@contextmanager
def record(
    model: nn.Module, stages: Sequence[str] | None = None
) -> Iterator[Recording]:
    """Record the first image that a model of OpenMMLab runs on.

    Nothing in the model changes: its forward is watched, not repeated, and
    the kernels are computed again from what went in, without gradients.

    Args:
        model (nn.Module): Has SAPA layers in it.
        stages (Sequence[str], optional): Names, or parts of names, of the
            layers to record. Default: all.

    Yields:
        Recording: Complete when the model has run.

    Raises:
        ValueError: If no SAPA layer has such a name.
    """
    layers = find_stages(model, stages)
    recording = Recording()
    seen = set()

    def keep_image(module, inputs, output):
        if recording.image is None:
            recording.image = _image(module, inputs[0], output)

    def keep_stage(name, layer, inputs, output):
        # A detector of several images, or a sliding window, calls it again.
        if name not in seen:
            seen.add(name)
            recording.stages.append(_stage(name, layer, *inputs, output))

    hooks = [
        layer.register_forward_hook(partial(keep_stage, name))
        for name, layer in layers.items()
    ]
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is not None:
        hooks.append(preprocessor.register_forward_hook(keep_image))
    try:
        yield recording
    finally:
        for hook in hooks:
            hook.remove()


def find_stages(
    model: nn.Module, stages: Sequence[str] | None = None
) -> dict[str, SAPA]:
    """Find the SAPA layers of a model by their names.

    Args:
        model (nn.Module): Any.
        stages (Sequence[str], optional): Names or parts of names. Default:
            all.

    Returns:
        dict[str, SAPA]: In the order that the model lists them.

    Raises:
        ValueError: If there is none.
    """
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
def _stage(name, layer, x, guide, output):
    x, guide = x[:1].detach(), guide[:1].detach()
    with torch.autocast(x.device.type, enabled=False):
        layer_type = next(layer.parameters()).dtype
        kernels = layer.kernels(x.to(layer_type), guide.to(layer_type))
    return Stage(
        name,
        *(
            tensor[0].detach().float().cpu()
            for tensor in (guide, x, kernels, output)
        ),
    )


def _image(preprocessor, data, output):
    """The first image of a batch, as large as the padded one."""
    image = data['inputs'][0].detach().cpu()
    if image.is_floating_point():
        image = image.clamp(0, 255)
    image = image.to(torch.uint8).permute(1, 2, 0).numpy()
    # OpenMMLab loads images as BGR, and its models take them as RGB.
    image = image[..., ::-1]
    padded = np.full((*output['inputs'].shape[2:], 3), 255, np.uint8)
    # Multi-scale training may have resized the batch.
    height, width = (
        min(sides) for sides in zip(image.shape[:2], padded.shape[:2])
    )
    padded[:height, :width] = image[:height, :width]
    return padded
