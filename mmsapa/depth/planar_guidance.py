"""Planes of BTS, and the depths on them: section 3.3 of its paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Below it a pixel's ray is as good as parallel to its plane.
LEAST_DENOMINATOR = 1e-3


def to_plane(logits: Tensor, max_depth: float) -> tuple[Tensor, Tensor]:
    """Turn three numbers a pixel into a plane.

    The first tilts the normal from the optical axis, by up to 60 degrees,
    the second turns it around the axis, and the third is the distance.

    Args:
        logits (Tensor[N, 3, H, W]): Before the sigmoid.
        max_depth (float): Largest distance, in meters.

    Returns:
        tuple[Tensor[N, 3, H, W], Tensor[N, 1, H, W]]: Unit normals, and
        distances in meters.
    """
    tilt, turn, distance = logits.sigmoid().split(1, 1)
    tilt, turn = math.pi / 3 * tilt, 2 * math.pi * turn
    normal = (tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), tilt.cos())
    return torch.cat(normal, 1), max_depth * distance


def local_planar_guidance(
    normal: Tensor, distance: Tensor, scale: int
) -> Tensor:
    """Compute the depths of the pixels that share a plane.

    Each low-res pixel becomes a cell of ``scale`` by ``scale`` pixels. A
    pixel at u across and v down from the center of its cell, in cells, has
    the depth distance / (n1 u + n2 v + n3). In the corners of large cells
    the denominator may be zero or less; it is at least 1e-3 here, which
    changes no depth of a healthy plane.

    Args:
        normal (Tensor[N, 3, H, W]): Unit normals n of the planes.
        distance (Tensor[N, 1, H, W]): Distances of the planes, in meters.
        scale (int): Side of a cell in pixels.

    Returns:
        Tensor[N, 1, H * scale, W * scale]: Depths in meters.
    """
    at = torch.arange(scale, device=normal.device, dtype=normal.dtype)
    at = (at - (scale - 1) / 2) / scale
    # The pixels of a cell, v and u, come before the rows.
    across, down = at.view(scale, 1, 1), at.view(scale, 1, 1, 1)
    n1, n2, n3 = normal[:, :, None, None].unbind(1)
    below = (n1 * across + n2 * down + n3).clamp(min=LEAST_DENOMINATOR)
    depth = distance[:, :, None] / below
    return F.pixel_shuffle(depth.flatten(1, 2), scale)
