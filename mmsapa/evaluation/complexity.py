"""Parameters and multiply-accumulates of models.

mmengine's ``FlopAnalyzer`` counts convolutions and matrix products, and not
the operators of upsample layers. Here it is given handles for these. Its table
of handles for all analyzers stays as it is.
"""

import sys
from collections import Counter
from contextlib import ExitStack
from functools import partial
from inspect import signature
from math import prod
from unittest import mock

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.analysis.jit_handles import get_shape
from mmengine.structures import PixelData
from torch import nn

from ..ops.registrations import multiply_accumulates

# What mmengine counts and papers do not.
NO_PRODUCTS = (
    'batch_norm',
    'layer_norm',
    'group_norm',
    'instance_norm',
    'adaptive_avg_pool2d',
    'upsample_nearest2d',
    'upsample_bilinear2d',
    'grid_sampler',
)


def flop_analyzer(model: nn.Module, inputs: tuple) -> FlopAnalyzer:
    """Make mmengine's analyzer, with handles for the upsample layers.

    It counts SAPA's operators and reassembly, ours and that of MMCV's CARAFE.

    Args:
        model (nn.Module): Module to count.
        inputs (Tensor | tuple): What it is called with.

    Returns:
        FlopAnalyzer: Multiply-accumulates come from ``total()`` and
        ``by_operator()``.
    """
    return FlopAnalyzer(model, inputs).set_op_handle(**_HANDLES)


def count(model: nn.Module, size: tuple[int, int] | None) -> dict:
    """Count parameters and multiply-accumulates of a model.

    The counts are those of ``get_flops.py`` of MMSegmentation and MMDetection,
    with the upsample layers: one image, no post-processing, no auxiliary
    heads, which only training uses. MaskFormer and Mask2Former of
    MMSegmentation are counted too. The model runs once, on its device.

    Args:
        model (nn.Module): Segmentor, detector or mattor, in evaluation
            mode.
        size (tuple[int, int], optional): H and W of the image in pixels;
            without one, only parameters are counted, of any module.

    Returns:
        dict: ``params`` (int); and where there is a size, ``flops`` (int),
        multiply-accumulates as mmengine counts them; ``products`` (int), the
        same without norms and interpolation, as papers count them;
        ``operators`` (dict[str, int]), the FLOPs by operator; ``uncounted``
        (dict[str, int]), calls of operators that are not counted.
    """
    params = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith('auxiliary_head.')
    )
    return dict(params=params, **(_count_flops(model, size) if size else {}))


def _count_flops(model, size):
    shapes = ('ori_shape', 'img_shape', 'pad_shape', 'batch_input_shape')
    sample = _sample_type(model)(
        metainfo=dict.fromkeys(shapes, size) | dict(scale_factor=(1.0, 1.0))
    )
    if _is_mattor(model):
        unknown = torch.full((1, *size), 128, dtype=torch.uint8)
        sample.trimap = PixelData(data=unknown)
    image = torch.randint(0, 256, (3, *size))
    data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
    samples = data['data_samples']
    with ExitStack() as stack:
        # For the time of the count.
        def replace(owner, name, value):
            stack.enter_context(mock.patch.object(owner, name, value))

        replace(model, 'forward', partial(model.forward, data_samples=samples))
        head = getattr(model, 'decode_head', None)
        if head and 'batch_data_samples' in signature(head.forward).parameters:
            # MaskFormer's, which MMSegmentation calls without samples here.
            forward = partial(head.forward, batch_data_samples=samples)
            replace(head, 'forward', forward)
        if carafe := sys.modules.get('mmcv.ops.carafe'):
            # MMCV's has no CPU kernel, and a count needs no values.
            replace(carafe.ext_module, 'carafe_forward', lambda *a, **k: None)
        # Gradients stay on: without them attention takes a fused path that
        # the analyzer does not know.
        analyzer = flop_analyzer(model, data['inputs'])
        analyzer.unsupported_ops_warnings(False)
        analyzer.uncalled_modules_warnings(False)
        # Einsums are counted as floats.
        operators = {k: int(n) for k, n in analyzer.by_operator().items()}
        return dict(
            flops=int(analyzer.total()),
            products=sum(
                n for k, n in operators.items() if k not in NO_PRODUCTS
            ),
            operators=operators,
            uncounted=dict(analyzer.unsupported_ops()),
        )


def _is_mattor(model):
    # By name, since to count a layer needs no MMCV.
    return any(base.__name__ == 'Mattor' for base in type(model).__mro__)


def _sample_type(model):
    """The class of data samples that a model takes."""
    if _is_mattor(model):
        from ..matting import MattingDataSample

        return MattingDataSample
    if type(model.data_preprocessor).__module__.startswith('mmseg'):
        from mmseg.structures import SegDataSample

        return SegDataSample
    from mmdet.structures import DetDataSample

    return DetDataSample


# ---- handles: from the inputs and outputs of an operator in a trace ---------


def _sapa_upsample(inputs, outputs):
    query, _, value, kernel_size = inputs[:4]
    return multiply_accumulates(
        get_shape(query), get_shape(value)[1], kernel_size.toIValue()
    )


def _norm_project(inputs, outputs):
    n, c, h, w = get_shape(inputs[0])
    return n * h * w * c * get_shape(inputs[1])[0]


def _channel_norm(inputs, outputs):
    # As mmengine counts a layer norm.
    return Counter(layer_norm=5 * prod(get_shape(inputs[0])))


def _carafe(inputs, outputs):
    # The reassembly: K * K weights for every number of the result.
    features, weights = (get_shape(value) for value in inputs)
    kernel_size = outputs[0].node().scalar_args()[0]
    macs = prod(features[:2]) * prod(weights[2:]) * kernel_size**2
    return Counter(carafe=macs)


def _reassemble(inputs, outputs):
    # The weights' channels are K * K for each number of the result.
    return prod(get_shape(outputs[0])) * get_shape(inputs[0])[1]


_HANDLES = {
    'mmsapa::channel_norm': _channel_norm,
    'mmsapa::norm_project': _norm_project,
    'mmsapa::reassemble': _reassemble,
    'mmsapa::sapa_upsample': _sapa_upsample,
    'prim::PythonOp.CARAFEFunction': _carafe,
}
