"""What operators take: checked here, in words, and maps made to fit."""

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Of a window's side in query pixels. The kernels' scratch grows with its
# square, and products of sizes within it cannot overflow.
MAX_WINDOW = 512

if hasattr(torch.compiler, 'is_exporting'):  # torch 2.7
    is_exporting = torch.compiler.is_exporting
else:

    def is_exporting() -> bool:
        """Not known in this version of PyTorch."""
        return False


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums of numbers of ``dtype`` are taken in."""
    # As torch.promote_types, which torch 2.1 cannot compile.
    return torch.float64 if dtype == torch.float64 else torch.float32


def sizes_vary(*sizes: int) -> bool:
    """Whether a graph is made that serves other sizes than these.

    torch.export and torch.jit.trace follow one call; what is chosen by its
    sizes in Python, all later calls get.
    """
    if torch.jit.is_tracing():
        return True
    # torch.compile may choose: it compiles anew.
    return is_exporting() and any(
        isinstance(size, torch.SymInt) for size in sizes
    )


def autocast_dtype(device_type: str):
    """Autocast's dtype for the device, or None where it is off."""
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        # Other devices, meta for one, raise.
        known = torch.amp.is_autocast_available(device_type)
        if known and torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
    elif device_type == 'cuda' and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    elif device_type == 'cpu' and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    return None


def check_sapa(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    kernel_size: int,
    scale_factor: int,
    prior: Tensor | None = None,
    strict: bool = False,
) -> bool:
    """Raise what is wrong with the arguments of SAPA, in one sentence.

    Args:
        name (str): Who asks.
        query (Tensor[N, E, Hq, Wq]): High resolution.
        key (Tensor[N, E, H, W]): Low resolution.
        value (Tensor[N, C, H, W], optional): Likewise; None where only the
            weights are wanted.
        kernel_size (int): K.
        scale_factor (int): s.
        prior (Tensor[s * s, K * K], optional): A constant.
        strict (bool): As the operators themselves are, which extend no map
            and cast nothing.

    Returns:
        bool: Whether key and value are short, see :func:`extend_to`.

    Raises:
        TypeError: If an argument has another type, dtype or layout.
        ValueError: If sizes, dtypes or devices do not fit together.
    """
    check_window(name, kernel_size, scale_factor)
    inputs = {'query': query, 'key': key}
    if value is not None:
        inputs['value'] = value
    check_maps(name, inputs, strict)
    if prior is not None:
        size = (scale_factor**2, kernel_size**2)
        _check_prior(name, prior, query, size, strict)

    n, e, hq, wq = query.shape
    n_low, e_low, h, w = key.shape
    if n != n_low or e != e_low:
        raise ValueError(
            f'{name}: expected query and key with the same N and E, got '
            f'{list(query.shape)} and {list(key.shape)}.'
        )
    if value is not None and (n, h, w) != (value.shape[0], *value.shape[2:]):
        raise ValueError(
            f'{name}: expected key and value with the same N, H and W, got '
            f'{list(key.shape)} and {list(value.shape)}.'
        )
    s = scale_factor
    if sizes_vary(hq, wq, h, w):
        if strict or nearly_fits((hq, wq), (h, w), s):
            return not strict
    if (h - 1) * s < hq <= h * s and (w - 1) * s < wq <= w * s:
        return False
    if not strict and nearly_fits((hq, wq), (h, w), s):
        return True
    hint = ''
    if hq < h and s > 1:
        hint = ' Are the guide and the low-res map swapped?'
    largest = f'H * {s}]' if strict else f'(H + 1) * {s})'
    raise ValueError(
        f'{name}: expected query {s} times as large as key, each side in '
        f'((H - 1) * {s}, {largest}, got {[hq, wq]} for {[h, w]}.{hint}'
    )


def check_norm_project(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
):
    """Raise what is wrong with the arguments of ``norm_project``.

    Args:
        x (Tensor[N, C, H, W]): A map.
        norm_weight (Tensor[C]): Of the norm.
        norm_bias (Tensor[C]): Likewise.
        weight (Tensor[E, C]): Of the projection.
        bias (Tensor[E]): Likewise.
        eps (float): Added to the variance.

    Raises:
        TypeError: If an argument has another type, dtype or layout.
        ValueError: If sizes do not fit together.
    """
    check_map('norm_project', 'x', x)
    parameters = (norm_weight, norm_bias, weight, bias)
    for i, tensor in enumerate(parameters):
        # Other mistakes show when they are folded.
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            role = ('norm_weight', 'norm_bias', 'weight', 'bias')[i]
            raise TypeError(
                f'norm_project: expected {role} as a torch.Tensor of a '
                f'floating dtype, got {_describe(tensor)}.'
            )
    c = x.shape[1]
    sizes = [tensor.shape for tensor in parameters]
    e = sizes[3][0] if sizes[3] else 0
    if not c or sizes != [(c,), (c,), (e, c), (e,)]:
        sizes = ', '.join(str(list(size)) for size in sizes)
        raise ValueError(
            'norm_project: expected x [N, C, H, W], norm_weight [C], '
            'norm_bias [C], weight [E, C] and bias [E] with C > 0, got '
            f'{list(x.shape)}, {sizes}.'
        )
    check_eps('norm_project', eps)


def check_projection(name: str, x: Tensor, weight: Tensor, bias: Tensor):
    """Raise what is wrong with tensors of the operator ``norm_project``.

    Args:
        name (str): Who asks.
        x (Tensor[N, C, H, W]): A map.
        weight (Tensor[E, C]): Float32, or float64 for a float64 ``x``.
        bias (Tensor[E]): Dtype of ``weight``.

    Raises:
        TypeError: If an argument has another type, dtype or layout.
        ValueError: If sizes, dtypes or devices do not fit together.
    """
    check_map(name, 'x', x)
    c = x.shape[1]
    for role, tensor in (('weight', weight), ('bias', bias)):
        check_parameter(name, role, tensor, x, strict=True)
    if (
        c == 0
        or weight.dim() != 2
        or weight.shape[1] != c
        or bias.shape != weight.shape[:1]
    ):
        raise ValueError(
            f'{name}: expected x [N, C, H, W], weight [E, C] and bias [E] '
            f'with C > 0, got {list(x.shape)}, {list(weight.shape)} and '
            f'{list(bias.shape)}.'
        )


def check_eps(name: str, eps: float):
    """Raise if ``eps`` is no number of 0 or more."""
    if not isinstance(eps, (float, int, torch.SymFloat)):
        raise TypeError(
            f'{name}: expected eps as a float, got {type(eps).__name__}.'
        )
    if not eps >= 0:
        raise ValueError(f'{name}: expected eps >= 0, got {eps}.')


def check_result(
    name: str, role: str, tensor: Tensor, like: Tensor, shape: tuple
):
    """Raise if a tensor is not of such a shape, and otherwise ``like``."""
    if tensor.shape != shape or (tensor.dtype, tensor.device) != (
        like.dtype,
        like.device,
    ):
        raise ValueError(
            f'{name}: expected {role} of {like.dtype} and shape '
            f'{list(shape)} on {like.device}, got {_describe(tensor)}.'
        )


def extend_to(x: Tensor, size: tuple, scale_factor: int) -> Tensor:
    """Give a low-res map one cell more along each side where it is short.

    A pyramid that rounds down halves 43 pixels to 21 cells, which are the
    cells of 42 pixels. The border rule: where the last pixels have no cell,
    the map's last row or column stands once more behind itself.

    Args:
        x (Tensor[N, C, H, W]): A low-res map, of any dtype.
        size (tuple[int, int]): (Hq, Wq), of the high-res map that ``x`` is
            upsampled to; (H - 1) * s < Hq < (H + 1) * s, and Wq likewise.
        scale_factor (int): s.

    Returns:
        Tensor[N, C, ceil(Hq / s), ceil(Wq / s)]: ``x`` itself where it is
        not short; differentiable.

    Raises:
        ValueError: If the sizes do not fit together.
    """
    low, s = x.shape[-2:], scale_factor
    if not nearly_fits(size, low, s):
        raise ValueError(
            f'extend_to: expected each side of size in ((H - 1) * {s}, '
            f'(H + 1) * {s}), got {list(size)} for a map of {list(low)}.'
        )
    if sizes_vary(*size, *low):  # or not, by the same steps
        for dim in (2, 3):
            x = torch.cat([x, x.narrow(dim, low[dim - 2] - 1, 1)], dim)
            x = _first(x, dim, (size[dim - 2] + s - 1) // s)
        return x
    if size[0] > low[0] * s:
        x = torch.cat([x, x[..., -1:, :]], -2)
    if size[1] > low[1] * s:
        x = torch.cat([x, x[..., -1:]], -1)
    return x


def crop(x: Tensor, size: tuple) -> Tensor:
    """Leave the first rows and columns of a map, as many as ``size`` has."""
    if sizes_vary(*size, *x.shape[-2:]):
        return _first(_first(x, 2, size[0]), 3, size[1])
    return x[..., : size[0], : size[1]]


def _first(x, dim, length):
    # Of a slice, torch.export would keep for all sizes whether it is
    # contiguous, which a map of odd size is not.
    return x.index_select(dim, torch.arange(length, device=x.device))


def nearly_fits(high: tuple, low: tuple, s: int) -> bool:
    """Whether one cell more, or none, makes sizes fit."""
    for a, b in zip(high, low):
        # A map without a row has none to repeat.
        if not (b - 1) * s < a < (b + 1) * s or (b == 0 and a > 0):
            return False
    return True


def check_window(name: str, kernel_size: int, scale_factor: int):
    """Raise if these are no window of a size that kernels take."""
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
            f'center, got {kernel_size}.'
        )
    if kernel_size * scale_factor > MAX_WINDOW:
        raise ValueError(
            f'{name}: expected kernel_size * scale_factor <= {MAX_WINDOW}, '
            f'got {kernel_size} * {scale_factor}.'
        )


def check_maps(name: str, maps: dict, strict: bool):
    """Raise if maps, by their roles, are not dense and of one kind."""
    for role, tensor in maps.items():
        check_map(name, role, tensor)
    (first, like), *_ = maps.items()
    for role, tensor in maps.items():
        if tensor.device != like.device:
            raise ValueError(
                f'{name}: expected all inputs on one device, got {first} on '
                f'{like.device} and {role} on {tensor.device}.'
            )
        # Autocast casts them to one dtype.
        if tensor.dtype != like.dtype and (
            strict or autocast_dtype(like.device.type) is None
        ):
            raise ValueError(
                f'{name}: expected all inputs of one dtype, got {first} of '
                f'{like.dtype} and {role} of {tensor.dtype}; cast one of '
                'them, or run under torch.autocast.'
            )


def _check_prior(name, prior, query, size, strict):
    advice = '; interpolation_prior() makes one'
    check_parameter(name, 'prior', prior, query, strict, advice)
    if prior.shape != size:
        raise ValueError(
            f'{name}: expected prior [s * s, K * K], here {list(size)}, got '
            f'{list(prior.shape)}.'
        )
    if prior.requires_grad:
        raise ValueError(
            f'{name}: expected a constant prior, got one that requires a '
            'gradient, and there is none; pass prior.detach().'
        )


def check_parameter(
    name: str,
    role: str,
    tensor: Tensor,
    like: Tensor,
    strict: bool,
    advice: str = '',
):
    """Raise if ``tensor`` is no dense tensor of numbers beside a map.

    Args:
        name (str): Who asks.
        role (str): Name of the argument.
        tensor (Tensor): Any size, on the device of ``like``.
        like (Tensor): The map.
        strict (bool): Whether the dtype must be that of the map's sums, and
            not any floating one.
        advice (str): Appended to the message.

    Raises:
        TypeError: If it is none.
    """
    exact = accumulate_dtype(like.dtype)
    if (
        not isinstance(tensor, Tensor)
        or tensor.layout is not torch.strided
        or tensor.is_nested
        or tensor.device != like.device
        or not tensor.is_floating_point()
        or (strict and tensor.dtype != exact)
    ):
        raise TypeError(
            f'{name}: expected {role} as a dense torch.Tensor of '
            f'{exact if strict else "a floating dtype"} on {like.device}, '
            f'got {_describe(tensor)}{advice}.'
        )


def check_map(name: str, role: str, tensor: Tensor):
    """Raise if ``tensor`` is no dense [N, C, H, W] of a known dtype."""
    if (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.dtype in DTYPES
        and not tensor.is_nested
        and tensor.dim() == 4
    ):
        return
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f'{name}: expected {role} as a torch.Tensor, got '
            f'{_describe(tensor)}.'
        )
    if tensor.is_nested or tensor.layout is not torch.strided:
        raise TypeError(
            f'{name}: expected {role} as a dense tensor, got '
            f'{_describe(tensor)}; make it dense by to_dense() or '
            'to_padded_tensor().'
        )
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f'{name}: expected {role} of dtype float32, float64, float16 or '
            f'bfloat16, got {tensor.dtype}.'
        )
    raise ValueError(
        f'{name}: expected {role} [N, C, H, W], got {list(tensor.shape)}.'
    )


def _describe(got) -> str:
    """Say what came, in a few words."""
    if not isinstance(got, Tensor):
        return type(got).__name__
    if got.is_nested:
        return 'a nested tensor'
    layout = '' if got.layout is torch.strided else f' and {got.layout}'
    return f'one of {got.dtype}{layout}, {list(got.shape)} on {got.device}'
