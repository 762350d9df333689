"""What ``benchmark_upsamplers.py`` times: operators, layers and models."""

import functools
import itertools
from typing import NamedTuple

import mmcv.ops
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData

from mmsapa.engine import timing
from mmsapa.engine.config import library_of
from mmsapa.engine.inference import build_model
from mmsapa.matting import MattingDataSample
from mmsapa.ops import (
    reassemble,
    sapa_upsample,
    sapa_upsample_reference,
    sapa_upsample_tiled,
)
from mmsapa.upsamplers import UpsampleSlot
from mmsapa.upsamplers.presets import PRESETS

KERNEL_SIZE, SCALE = 5, 2
# Largest error of a candidate, as a share of the result's largest number.
TOLERANCES = {'float32': 1e-4, 'bfloat16': 2e-2, 'float16': 4e-3}


class Shape(NamedTuple):
    """Sizes of a case; H and W are those of the low-res map."""

    name: str
    n: int
    c: int
    e: int
    h: int
    w: int
    guide_channels: int | None = None  # of a layer; by default c

    @property
    def title(self) -> str:
        """Its name and its sizes, which may be the same."""
        sizes = 'x'.join(map(str, self[1:6]))
        return sizes if self.name == sizes else f'{self.name} {sizes}'

    @property
    def pixels(self) -> int:
        """High-res pixels of all maps."""
        return self.n * self.h * self.w * SCALE**2

    def floor_bytes(self, dtype: str, backward: bool) -> int:
        """What the operator must read and write, each number once."""
        key_value = (self.e + self.c) / SCALE**2
        numbers = self.e + self.c + key_value
        if backward:
            numbers += self.c + 2 * self.e + 2 * key_value
        return int(getattr(torch, dtype).itemsize * self.pixels * numbers)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape('segformer', 1, 256, 32, 64, 64),
        Shape('fpn', 2, 256, 32, 100, 168),
        Shape('bts', 1, 2048, 32, 13, 17, guide_channels=1024),
        Shape('matting', 1, 256, 32, 32, 32),
        Shape('sapa-i', 1, 256, 256, 64, 64),
    )
}


# ---- SAPA in plain PyTorch --------------------------------------------------


def _split(x, h, w):
    """The queries of [N, C, Hq, Wq] by cell: [N, C, H, s, W, s]."""
    x = F.pad(x, [0, w * SCALE - x.shape[3], 0, h * SCALE - x.shape[2]])
    return x.unflatten(3, (w, SCALE)).unflatten(2, (h, SCALE))


def _merge(x, like, dtype):
    """The reverse, to the size of ``like``."""
    x = x.flatten(4, 5).flatten(2, 3)[..., : like.shape[2], : like.shape[3]]
    return x.to(dtype).contiguous()


def unfold(query, key, value):
    """SAPA as one would write it: unfolded windows and two einsums."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    h, w = key.shape[2:]

    def windows(x):
        x = F.unfold(x.to(dtype), KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        return x.unflatten(1, (-1, KERNEL_SIZE**2)).unflatten(3, (h, w))

    queries = _split(query.to(dtype), h, w)
    logits = torch.einsum('nchawb,nckhw->nkhawb', queries, windows(key))
    out = torch.einsum(
        'nkhawb,nckhw->nchawb', logits.softmax(1), windows(value)
    )
    return _merge(out, query, value.dtype)


def shifts(query, key, value):
    """SAPA with one shift of the map at a time, K * K times."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    h, w = key.shape[2:]
    queries = _split(query.to(dtype), h, w)

    def shifted(x):
        x = F.pad(x.to(dtype), [KERNEL_SIZE // 2] * 4)
        for i, j in itertools.product(range(KERNEL_SIZE), repeat=2):
            yield x[:, :, i : i + h, None, j : j + w, None]

    logits = torch.stack([(queries * k).sum(1) for k in shifted(key)], 1)
    weights = logits.softmax(1).unsqueeze(2).unbind(1)
    out = 0
    for weight, v in zip(weights, shifted(value)):
        out = out + weight * v
    return _merge(out, query, value.dtype)


# ---- candidates -------------------------------------------------------------


def _interpolation(mode):
    return lambda query, key, value: F.interpolate(
        value, query.shape[2:], mode=mode
    )


# Functions of query, key and value; those with True compute SAPA.
OPERATORS = {
    'sapa': (sapa_upsample, True),
    'nearest': (_interpolation('nearest'), False),
    'bilinear': (_interpolation('bilinear'), False),
    # Weights come in place of the queries.
    'carafe': (
        lambda query, key, value: reassemble(query, value, KERNEL_SIZE, SCALE),
        False,
    ),
    'mmcv-carafe': (
        lambda query, key, value: mmcv.ops.carafe(
            value, query, KERNEL_SIZE, 1, SCALE
        ),
        False,
    ),
    'tiled-compiled': (
        torch.compile(sapa_upsample_tiled, dynamic=False, fullgraph=True),
        True,
    ),
    'tiled': (sapa_upsample_tiled, True),
    'shifts': (shifts, True),
    'unfold': (unfold, True),
    'reference': (sapa_upsample_reference, True),
}
LAYERS = {
    **PRESETS,
    'mmcv-carafe': dict(type=mmcv.ops.CARAFEPack),
    'deconv': dict(type='deconv'),
}


def prepare(kind, name, shape, dtype, device, short=0):
    """Make a candidate and its inputs.

    Args:
        kind (str): 'operator' or 'layer'.
        name (str): Key of OPERATORS or LAYERS.
        shape (Shape): Sizes.
        dtype (str): Of everything.
        device (str): 'cpu' or 'cuda'.
        short (int): Queries missing at the far border.

    Returns:
        tuple[Callable, list[Tensor], list[Tensor]]: A function, its inputs
        and its parameters, as ``timing.make_run`` takes them.
    """
    if kind == 'layer':
        guide_channels = shape.guide_channels or shape.c
        layer = UpsampleSlot(LAYERS[name], shape.c, guide_channels)
        layer.to(device, getattr(torch, dtype))
        guide, _, x = _maps(shape, guide_channels, dtype, device, short)
        return (
            lambda guide, x: layer(x, guide),
            [guide, x],
            list(layer.parameters()),
        )
    high = KERNEL_SIZE**2 if 'carafe' in name else shape.e
    maps = _maps(shape, high, dtype, device, short)
    return OPERATORS[name][0], list(maps), []


@functools.lru_cache(2)  # what candidates share
def _maps(shape, high, dtype, device, short):
    """High-res map of so many channels, low-res map of E, of C channels."""
    _, n, c, e, h, w, _ = shape
    torch.manual_seed(0)
    # Logits of variance 1, so that no weight underflows.
    scales = max(high, 1) ** -0.25, max(e, 1) ** -0.25, 1
    sizes = (
        (n, high, h * SCALE - short, w * SCALE - short),
        (n, e, h, w),
        (n, c, h, w),
    )
    return [
        torch.randn(size).mul_(scale).to(device, getattr(torch, dtype))
        for size, scale in zip(sizes, scales)
    ]


def memory_runs(kind, name, shape, dtype, backward):
    """Make a small run to load the code by, and the one to measure.

    Returns:
        list[Callable]: As ``timing.cpu_extra_bytes`` calls them.
    """
    small = shape._replace(n=1, h=8, w=8)
    # The compiler works anew for every size.
    sizes = (shape if 'compiled' in name else small, shape)
    return [
        timing.make_run(*prepare(kind, name, size, dtype, 'cpu'), backward)
        for size in sizes
    ]


# ---- checks -----------------------------------------------------------------


def check(kind, name, shape, dtype, device):
    """Try a candidate before it is timed; takes what prepare takes.

    Raises:
        MemoryError: If there is too little memory for this shape.
        ValueError: If it should compute SAPA and does not.
        Exception: What the candidate itself raises, where there is no such
            kernel, dtype or compiler.
    """
    check_memory(name, shape, dtype, device)
    operator = name if kind == 'operator' else LAYERS[name]['type']
    if operator in OPERATORS and OPERATORS[operator][1]:
        check_result(operator, shape, dtype, device)
    small = shape._replace(n=1, h=8, w=8)
    function, inputs, _ = prepare(kind, name, small, dtype, device)
    function(*inputs)


def check_memory(name, shape, dtype, device):
    """Raise MemoryError, before the system ends the process."""
    # Inputs, result, gradients, and about as much again on the way.
    needed = 2 * shape.floor_bytes(dtype, True)
    if name in ('unfold', 'reference'):
        needed += 3 * 4 * KERNEL_SIZE**2 * shape.c * shape.pixels
    free = timing.free_bytes(device)
    if needed > free:
        raise MemoryError(
            f'expected {needed / 2**30:.1f} GiB of free memory, got '
            f'{free / 2**30:.1f}; take a smaller shape'
        )


def check_result(name, shape, dtype, device):
    """Raise ValueError if an operator differs from the reference.

    Result and gradients are compared, on maps of 7x9 with the channels of
    ``shape``, one row and column of queries missing.
    """
    shape = shape._replace(n=2, h=7, w=9)
    function, inputs, _ = prepare('operator', name, shape, dtype, device, 1)
    exact = [x.double() for x in inputs]
    got = timing.make_run(function, inputs, backward=True)()
    expected = timing.make_run(sapa_upsample_reference, exact, backward=True)
    names = ('result', 'gradient of query', 'gradient of key', 'gradient of v')
    for what, x, y in zip(names, got, expected(), strict=True):
        error = (x.double() - y).abs().max() / y.abs().max()
        if not error <= TOLERANCES[dtype]:
            raise ValueError(
                f"expected SAPA's {what}, got one that is off by {error:.1g} "
                'of its largest number; fix the candidate'
            )


# ---- models -----------------------------------------------------------------


def model_runs(cfg, size, dtype, device, weights):
    """Make runs of one inference, and of the upsampling in it alone.

    Forward hooks record what the slots are called with in one inference;
    the second run makes these calls again.

    Args:
        cfg (Config): Of a segmentor, detector or mattor.
        size (tuple[int, int]): H and W of the image.
        dtype (str): Of autocast; float32 is without.
        device (str): 'cpu' or 'cuda'.
        weights (dict[str, Tensor]): Of the candidates before, empty for the
            first. This one takes them where it has them, and adds its own:
            with others a detector would have other boxes to sort.

    Returns:
        tuple[Callable, Callable]: The two runs.
    """
    cfg.model.backbone.init_cfg = None  # no download
    model = build_model(cfg)
    model.init_weights()
    model.to(device)
    model.load_state_dict(weights, strict=False)
    weights.update(model.state_dict())

    library = library_of(cfg)
    channels = 4 if library == 'mmsapa' else 3  # with a trimap
    torch.manual_seed(0)
    image = torch.randn(1, channels, *size, device=device)
    samples = None
    if library == 'mmdet':
        from mmdet.structures import DetDataSample

        keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
        meta = dict.fromkeys(keys, size) | dict(scale_factor=(1, 1))
        samples = [DetDataSample(metainfo=meta)]
    elif library == 'mmsapa':
        unknown = torch.full((1, *size), 128, dtype=torch.uint8)
        trimap = PixelData(data=unknown.to(device))
        samples = [MattingDataSample(trimap=trimap)]

    # Torch 2.1 refuses float32 even where autocast is off.
    half = dtype if dtype != 'float32' else 'bfloat16'
    precision = torch.autocast(
        device, getattr(torch, half), enabled=dtype != 'float32'
    )
    calls = []

    @torch.no_grad()
    @precision
    def whole():
        model(image, samples, mode='predict')

    @torch.no_grad()
    @precision
    def upsampling():
        for slot, maps in calls:
            slot(*maps)

    hooks = [
        module.register_forward_hook(
            lambda slot, maps, out: calls.append((slot, maps))
        )
        for module in model.modules()
        if isinstance(module, UpsampleSlot)
    ]
    whole()
    for hook in hooks:
        hook.remove()
    return whole, upsampling
