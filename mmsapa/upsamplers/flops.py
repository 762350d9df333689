"""mmengine's FLOPs counter, and so every get_flops.py, learns the operators.

The counter has no public place for a handle of all its instances. Of products
element by element it learns ``addcmul`` alone, by which FADE and A2U
reassemble.
"""

from collections import Counter
from math import prod

from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS
from mmengine.analysis.jit_handles import get_shape

from ..ops.registrations import multiply_accumulates


def _upsample(inputs, outputs):
    query, _, value, kernel_size = inputs[:4]
    return multiply_accumulates(
        get_shape(query), get_shape(value)[1], kernel_size.toIValue()
    )


def _kernels(inputs, outputs):
    query, _, kernel_size = inputs[:3]
    return multiply_accumulates(get_shape(query), 0, kernel_size.toIValue())


def _norm_project(inputs, outputs):
    n, c, h, w = get_shape(inputs[0])
    return n * h * w * c * get_shape(inputs[1])[0]


def _carafe(inputs, outputs):
    # mmcv's reassembly: K * K weights for every number of the result.
    features, weights = (get_shape(value) for value in inputs)
    kernel_size = outputs[0].node().scalar_args()[0]
    macs = prod(features[:2]) * prod(weights[2:]) * kernel_size**2
    return Counter(carafe=macs)


def _addcmul(inputs, outputs):
    return prod(get_shape(outputs[0]))


_DEFAULT_SUPPORTED_FLOP_OPS['aten::addcmul'] = _addcmul
_DEFAULT_SUPPORTED_FLOP_OPS['mmsapa::sapa_upsample'] = _upsample
_DEFAULT_SUPPORTED_FLOP_OPS['mmsapa::sapa_kernels'] = _kernels
_DEFAULT_SUPPORTED_FLOP_OPS['mmsapa::norm_project'] = _norm_project
_DEFAULT_SUPPORTED_FLOP_OPS['prim::PythonOp.CARAFEFunction'] = _carafe
