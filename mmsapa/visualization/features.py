"""Features and kernels as images: colors for many channels."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pca_colors(*families: Sequence[Tensor]) -> list[list[np.ndarray]]:
    """Color feature maps by their three principal components.

    All maps share one basis, so that a color means the same in each. The
    maps of a family share mean and range too: they can be compared pixel by
    pixel.

    Args:
        *families (Sequence[Tensor[C, H, W]]): Maps of the same number of
            channels and of any size.

    Returns:
        list[list[np.ndarray]]: For each map its colors, float in 0 ... 1,
        [H, W, 3].
    """
    covariance = 0
    centred = []
    for family in families:
        # What overflowed in half precision has no color of its own.
        pixels = torch.cat([x.flatten(1) for x in family], 1)
        pixels = torch.where(pixels.isfinite(), pixels, 0)
        pixels = pixels - pixels.mean(1, keepdim=True)
        centred.append(pixels)
        product = (pixels @ pixels.T).double()
        # Families weigh the same, whatever their sizes and scales.
        covariance = covariance + product / product.trace().clamp_min(1e-30)
    basis = torch.linalg.eigh(covariance)[1].flip(1)[:, :3]
    # A component's sign is arbitrary: make its largest entry positive.
    largest = basis.abs().argmax(0, keepdim=True)
    basis = basis * basis.gather(0, largest).sign()
    colors = []
    for family, pixels in zip(families, centred, strict=True):
        components = basis.T.to(pixels) @ pixels
        low, high = (quantile(components, q)[:, None] for q in (0.02, 0.98))
        components = (components - low) / (high - low).clamp_min(1e-12)
        components = components.clamp(0, 1)
        missing = 3 - len(components)  # of maps with one or two channels
        if missing:
            components = torch.cat(
                [components, components[:1].expand(missing, -1)]
            )
        sizes = [x.shape[1] * x.shape[2] for x in family]
        colors.append(
            [
                part.unflatten(1, x.shape[1:]).permute(1, 2, 0).numpy()
                for part, x in zip(components.split(sizes, 1), family)
            ]
        )
    return colors


def quantile(values: Tensor, q: float) -> Tensor:
    """Quantile along the last axis, of about a million values at most.

    Args:
        values (Tensor[..., N]): Of any length; PyTorch takes 16 million.
        q (float): 0 to 1.

    Returns:
        Tensor[...]: The quantile.
    """
    return values[..., :: max(1, values.shape[-1] >> 20)].quantile(q, -1)


def entropy(kernels: Tensor) -> Tensor:
    """Entropy of each kernel.

    Args:
        kernels (Tensor[K * K, H, W]): They sum to 1 over the first axis.

    Returns:
        Tensor[H, W]: 0 where one pixel has all the weight, 1 where all pixels
        of the window have the same.
    """
    most = math.log(len(kernels)) or 1  # a single pixel has all the weight
    return torch.special.entr(kernels).sum(0) / most


def mean_offset(kernels: Tensor) -> Tensor:
    """Mean position in the window, weighted by each kernel.

    Args:
        kernels (Tensor[K * K, H, W]): As in :func:`entropy`.

    Returns:
        Tensor[2, H, W]: x and y from the center of the window, in low-res
        pixels.
    """
    k = math.isqrt(len(kernels))
    steps = torch.arange(k, dtype=kernels.dtype) - k // 2
    window = kernels.unflatten(0, (k, k))
    return torch.stack(
        [
            torch.einsum('yxhw,x->hw', window, steps),
            torch.einsum('yxhw,y->hw', window, steps),
        ]
    )


def direction_colors(vectors: Tensor, longest: float) -> np.ndarray:
    """Color vectors: direction as hue, length as saturation.

    Lightness is the same everywhere (hues of Oklab,
    https://bottosson.github.io/posts/oklab), so no direction stands out.

    Args:
        vectors (Tensor[2, H, W]): x to the right and y downwards.
        longest (float): The length of full saturation; longer vectors are
            clipped.

    Returns:
        np.ndarray: sRGB, float in 0 ... 1, [H, W, 3].
    """
    x, y = vectors.double()
    length = torch.hypot(x, y)
    scale = 0.125 / longest * (longest / length.clamp_min(1e-12)).clamp_max(1)
    # Up is yellow, right is reddish, down is blue, left is green.
    lightness = torch.full_like(x, 0.75)
    a, b = x * scale, -y * scale
    long = lightness + 0.3963377774 * a + 0.2158037573 * b
    medium = lightness - 0.1055613458 * a - 0.0638541728 * b
    short = lightness - 0.0894841775 * a - 1.2914855480 * b
    long, medium, short = long**3, medium**3, short**3
    linear = torch.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long
            + 2.6097574011 * medium
            - 0.3413193965 * short,
            -0.0041960863 * long
            - 0.7034186147 * medium
            + 1.7076147010 * short,
        ],
        -1,
    ).clamp(0, 1)
    encoded = torch.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * linear ** (1 / 2.4) - 0.055,
    )
    return encoded.numpy()


def sharpest(
    kernels: Tensor, scale_factor: int, number: int
) -> list[tuple[int, int]]:
    """Find the pixels with kernels of least entropy, far from each other.

    Args:
        kernels (Tensor[K * K, H, W]): As in :func:`entropy`.
        scale_factor (int): Of the upsampling.
        number (int): How many pixels.

    Returns:
        list[tuple[int, int]]: x and y of each.
    """
    values = entropy(kernels)
    height, width = values.shape
    rows = torch.arange(height, dtype=torch.float32)[:, None]
    columns = torch.arange(width, dtype=torch.float32)
    apart = max(height, width) / (number + 1)
    points = []
    # Windows across the border have less to choose from.
    reach = math.isqrt(len(kernels)) // 2 * scale_factor
    margin = min(reach, (min(height, width) - 1) // 2)
    inside = torch.full_like(values, torch.inf)
    inside[margin : height - margin, margin : width - margin] = 0
    values = values + inside
    for _ in range(number):
        place = int(values.argmin())
        y, x = divmod(place, width)
        if not values[y, x].isfinite():
            break
        points.append((x, y))
        values[torch.hypot(rows - y, columns - x) < apart] = torch.inf
    return points
