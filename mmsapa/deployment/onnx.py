"""ONNX by standard operators."""

import os
from typing import Any

import torch
from torch import Tensor, nn

from .decompositions import decompositions

OPSET = 18


def export_onnx(
    model: nn.Module,
    args: tuple,
    path: str | os.PathLike | None = None,
    dynamic_shapes: Any = None,
    **options,
) -> 'torch.onnx.ONNXProgram':
    """Export a model with any of our layers to standard ONNX.

    Three steps, which can be taken one by one: ``torch.export.export``,
    ``run_decompositions(decompositions())``, ``torch.onnx.export``. The
    graph has no operators but ONNX's own, and none of GridSample, Unfold
    and Col2Im. Sizes that vary may be odd ones, and those of a pyramid that
    rounds down, as in PyTorch; the graph does not check them.

    Args:
        model (nn.Module): Takes and returns tensors; exported as it is,
            usually after ``model.eval()``.
        args (tuple): Example inputs.
        path (str or Path, optional): The file to write.
        dynamic_shapes (optional): As ``torch.export.export`` takes it.
            Default: batch, height and width vary in all maps [N, C, H, W]
            among ``args``, except those that are 1 in the example; an empty
            dict fixes all.
        **options: For ``torch.onnx.export``, such as ``input_names``.

    Returns:
        ONNXProgram: The graph and its weights.

    Raises:
        RuntimeError: If torch is older than 2.7.
        ImportError: If onnx or onnxscript is missing.
        ValueError: If the example is too small for sizes that vary
            (:func:`decompositions`).
    """
    if not hasattr(torch.compiler, 'is_exporting'):
        raise RuntimeError(
            f'export_onnx: expected torch 2.7 or newer, got '
            f'{torch.__version__}; export with a newer one, which loads the '
            'same checkpoints.'
        )
    if dynamic_shapes is None:
        dynamic_shapes = tuple(_varying(arg) for arg in args)
    with torch.no_grad():
        program = torch.export.export(
            model, args, dynamic_shapes=dynamic_shapes or None, strict=False
        )
        program = program.run_decompositions(decompositions())
    options = dict(opset_version=OPSET, verbose=False) | options
    return torch.onnx.export(program, (), path, dynamo=True, **options)


def _varying(arg) -> dict | None:
    """Which sizes of an example input vary."""
    if not isinstance(arg, Tensor) or arg.dim() != 4:
        return None
    # torch.export takes a size of 1 for a constant.
    return {
        dim: torch.export.Dim.DYNAMIC
        for dim in (0, 2, 3)
        if arg.shape[dim] > 1
    }
