"""The scale-invariant logarithmic loss as BTS has it."""

import torch
import torch.nn as nn
from torch import Tensor

from ..ops.checks import accumulate_dtype
from ..registry import MODELS

# A sigmoid may round to zero, which has no logarithm. In meters.
LEAST_DEPTH = 1e-6


@MODELS.register_module()
class SILogLoss(nn.Module):
    """Scale-invariant logarithmic loss over all pixels of a batch together.

    Equations 5 and 6 of `BTS <https://arxiv.org/abs/1907.10326>`_: with
    d = ln(predicted) - ln(true) at the pixels that have a depth,

        loss_weight * sqrt(mean(d^2) - variance_focus * mean(d)^2).

    An exact fit, and a batch in which no pixel has a depth, have a loss and
    gradients of zero.

    Args:
        variance_focus (float): From 0 to 1, the loss of a wrong scale being
            the smaller the larger it is. Default: 0.85.
        min_depth (float): A pixel has a depth if it is larger, in meters.
            Default: 0.1.
        loss_weight (float): Default: 10, which is BTS's.
        loss_name (str): Name in logs. Default: ``'loss_silog'``.

    Raises:
        ValueError: If ``variance_focus`` is not from 0 to 1.
    """

    def __init__(
        self,
        variance_focus: float = 0.85,
        min_depth: float = 0.1,
        loss_weight: float = 10.0,
        loss_name: str = 'loss_silog',
    ):
        super().__init__()
        if not 0 <= variance_focus <= 1:
            raise ValueError(
                'SILogLoss: expected variance_focus from 0 to 1, got '
                f'{variance_focus}; above 1 the loss is a root of a negative '
                'number.'
            )
        self.variance_focus = variance_focus
        self.min_depth = min_depth
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor[N, 1, H, W]): Predicted depths, in meters.
            target (Tensor[N, 1, H, W]): True depths, in meters; 0 where
                there is none.

        Returns:
            Tensor[]: The loss, at least in float32.

        Raises:
            ValueError: If the shapes differ.
        """
        if pred.shape != target.shape:
            raise ValueError(
                'SILogLoss: expected a prediction and a true depth map of '
                f'one size, got {list(pred.shape)} and {list(target.shape)}; '
                'BTS needs sides that are multiples of 32: crop or pad to '
                'such a size.'
            )
        valid = target > self.min_depth
        dtype = accumulate_dtype(pred.dtype)
        pred, target = pred[valid].to(dtype), target[valid].to(dtype)
        d = pred.clamp(min=LEAST_DEPTH).log() - target.log()
        if not d.numel():
            return d.sum()  # zero, and gradients of zero
        mean = d.mean()
        # The root of variance + (1 - focus) * mean^2, which is the same, as
        # the norm of a vector: unlike a root it has a gradient at zero.
        spread = (d - mean) / d.numel() ** 0.5
        shift = (1 - self.variance_focus) ** 0.5 * mean
        return self.loss_weight * torch.linalg.vector_norm(
            torch.cat([spread, shift[None]])
        )
