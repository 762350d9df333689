"""The public functions: friendly checks in front of the operators."""

import torch
from torch import Tensor

from . import registrations  # noqa: F401  defines torch.ops.mmsapa

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def sapa_upsample(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
) -> Tensor:
    r"""Upsample ``value`` by the similarity of ``query`` and ``key``.

    A query pixel p belongs to the low-res cell c(p) = p // s. It compares
    itself with the K x K cells around c(p) and takes their mean, weighted by
    similarity (SAPA, NeurIPS 2022, section 3):

    .. math::
        out_p = \sum_o softmax_o(\langle query_p, key_{c(p) + o} \rangle)
        \, value_{c(p) + o}

    Keys and values outside the map are zero and take part in the softmax.
    All K x K weights of a pixel live in registers: memory beyond inputs and
    output is small, forward and backward. The backward pass is deterministic
    and has no second derivative. Accumulation is in float32 or wider. Under
    autocast all three inputs are cast to autocast's dtype.

    Args:
        query (Tensor[N, E, Hq, Wq]): Embedded guide, high resolution;
            float32, float64, float16 or bfloat16.
        key (Tensor[N, E, H, W]): Embedded ``value``, low resolution, with
            (H - 1) * s < Hq <= H * s, and Wq likewise; dtype as ``query``.
        value (Tensor[N, C, H, W]): Map to upsample; dtype as ``query``.
        kernel_size (int): K, the window's side in low-res cells; odd.
        scale_factor (int): s, queries to a cell along each axis.

    Returns:
        Tensor[N, C, Hq, Wq]: The upsampled map, contiguous, dtype of
        ``value``.

    Raises:
        TypeError: If an input is not a tensor, or its dtype is not one of
            the above.
        ValueError: If sizes, dtypes or devices do not fit together.
    """
    _check('sapa_upsample', query, key, value, kernel_size, scale_factor)
    return torch.ops.mmsapa.sapa_upsample(
        query, key, value, kernel_size, scale_factor
    )


def sapa_kernels(
    query: Tensor, key: Tensor, kernel_size: int = 5, scale_factor: int = 2
) -> Tensor:
    """The weights by which :func:`sapa_upsample` takes its means.

    Args:
        query (Tensor[N, E, Hq, Wq]): As in :func:`sapa_upsample`.
        key (Tensor[N, E, H, W]): As in :func:`sapa_upsample`.
        kernel_size (int): K, odd.
        scale_factor (int): s.

    Returns:
        Tensor[N, K*K, Hq, Wq]: Softmax weights; the window is row-major, and
        they sum to 1 over dimension 1, places outside the map included.

    Raises:
        TypeError: As :func:`sapa_upsample`.
        ValueError: As :func:`sapa_upsample`.
    """
    _check('sapa_kernels', query, key, None, kernel_size, scale_factor)
    return torch.ops.mmsapa.sapa_kernels(query, key, kernel_size, scale_factor)


def norm_project(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    r"""Layer normalisation over channels and a projection, in one.

    A projection of a normalised pixel is a projection of the pixel as it is,
    divided by its standard deviation, if the norm's affine parameters are
    folded into the projection and each row of that loses its mean:

    .. math::
        W (\gamma \odot (x - \mu) / \sigma + \beta) + b
        = \overline{W \gamma} x / \sigma + W \beta + b

    So the normalised map is neither written nor kept for backward. The
    variance is taken of differences, never of the raw squares, so that a
    large mean does no harm; sums are in float32 or wider. The backward pass
    is deterministic and has no second derivative.

    Args:
        x (Tensor[N, C, H, W]): A map; float32, float64, float16 or bfloat16.
        norm_weight (Tensor[C]): Of the norm, any floating dtype.
        norm_bias (Tensor[C]): Likewise.
        weight (Tensor[E, C]): Of the projection, likewise.
        bias (Tensor[E]): Likewise.
        eps (float): Added to the variance.

    Returns:
        Tensor[N, E, H, W]: The projected map, dtype of ``x``.

    Raises:
        TypeError: If the dtype of ``x`` is not one of the above.
        ValueError: If sizes do not fit together.
    """
    if not isinstance(x, Tensor) or x.dtype not in _DTYPES:
        raise TypeError(
            'norm_project: expected x as a torch.Tensor of dtype float32, '
            'float64, float16 or bfloat16, got '
            f'{x.dtype if isinstance(x, Tensor) else type(x).__name__}.'
        )
    c, e = weight.shape[-1], weight.shape[0]
    sizes = [list(t.shape) for t in (norm_weight, norm_bias, weight, bias)]
    if x.dim() != 4 or x.shape[1] != c or sizes != [[c], [c], [e, c], [e]]:
        raise ValueError(
            'norm_project: expected x [N, C, H, W], norm_weight [C], '
            'norm_bias [C], weight [E, C] and bias [E], got '
            f'{list(x.shape)}, {", ".join(map(str, sizes))}.'
        )
    # Elementwise and in full precision, whatever autocast makes of products.
    exact = torch.promote_types(x.dtype, torch.float32)
    weight = weight.to(exact)
    folded = weight * norm_weight.to(exact)
    folded = folded - folded.mean(1, keepdim=True)
    offset = (weight * norm_bias.to(exact)).sum(1) + bias.to(exact)
    return torch.ops.mmsapa.norm_project(x, folded, offset, eps)[0]


def _check(name, query, key, value, kernel_size, scale_factor):
    """Raise what is wrong with the arguments, in one sentence."""
    for number, got in (
        ('kernel_size', kernel_size),
        ('scale_factor', scale_factor),
    ):
        if isinstance(got, bool) or not isinstance(got, (int, torch.SymInt)):
            raise TypeError(
                f'{name}: expected {number} as an int, got '
                f'{type(got).__name__} {got!r}.'
            )
        if got < 1:
            raise ValueError(f'{name}: expected {number} >= 1, got {got}.')
    if kernel_size % 2 == 0:
        raise ValueError(
            f'{name}: expected an odd kernel_size, so that the window has a '
            f'centre, got {kernel_size}.'
        )

    inputs = {'query': query, 'key': key}
    if value is not None:
        inputs['value'] = value
    for role, tensor in inputs.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f'{name}: expected {role} as a torch.Tensor, got '
                f'{type(tensor).__name__}.'
            )
        if tensor.dtype not in _DTYPES:
            raise TypeError(
                f'{name}: expected {role} of dtype float32, float64, float16 '
                f'or bfloat16, got {tensor.dtype}.'
            )
        if tensor.dim() != 4:
            raise ValueError(
                f'{name}: expected {role} of shape [N, C, H, W], got '
                f'{list(tensor.shape)}.'
            )
    for role, tensor in inputs.items():
        if tensor.device != query.device:
            raise ValueError(
                f'{name}: expected all inputs on one device, got query on '
                f'{query.device} and {role} on {tensor.device}.'
            )
        # Autocast casts them to one dtype.
        if tensor.dtype != query.dtype and not _autocasting(query):
            raise ValueError(
                f'{name}: expected all inputs of one dtype, got query of '
                f'{query.dtype} and {role} of {tensor.dtype}; cast one of '
                'them, or run under torch.autocast.'
            )

    if query.shape[:2] != key.shape[:2]:
        raise ValueError(
            f'{name}: expected query and key with the same N and E, got '
            f'{list(query.shape)} and {list(key.shape)}.'
        )
    if value is not None and (
        value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]
    ):
        raise ValueError(
            f'{name}: expected key and value with the same N, H and W, got '
            f'{list(key.shape)} and {list(value.shape)}.'
        )
    for high, low in (
        (query.shape[2], key.shape[2]),
        (query.shape[3], key.shape[3]),
    ):
        if not (low - 1) * scale_factor < high <= low * scale_factor:
            hint = ''
            if query.shape[2] < key.shape[2] and scale_factor > 1:
                hint = ' Are the guide and the low-res map swapped?'
            raise ValueError(
                f'{name}: expected query {scale_factor} times as large as '
                f'key, each side in ((H - 1) * {scale_factor}, H * '
                f'{scale_factor}], got {list(query.shape[2:])} for '
                f'{list(key.shape[2:])}.{hint}'
            )


def _autocasting(tensor: Tensor) -> bool:
    return registrations.autocast_dtype(tensor.device.type) is not None
