"""The loss of A2U matting's baseline."""

import torch.nn as nn
from torch import Tensor

from ..ops.checks import accumulate_dtype
from ..registry import MODELS

EPS = 1e-12  # under the root, so that it has a gradient at zero


@MODELS.register_module()
class MattingLoss(nn.Module):
    """Error of a matte, and of the composite made by it.

    Both are sums over the unknown pixels of an image, over their number plus
    one; then the mean over images. With the error e = predicted - true of
    each pixel,

        alpha_weight * sum sqrt(e^2 + 1e-12)
        composition_weight * sum over R, G, B of sqrt((e (F - B))^2 + 1e-12),

    where F and B are foreground and background from 0 to 1: e (F - B) is
    what the composite is off by. Known pixels add 1e-6 each, which has no
    gradient.

    Args:
        alpha_weight (float): Default: 0.5.
        composition_weight (float): Default: 0.5; with 0, neither foreground
            nor background is needed.
    """

    def __init__(
        self, alpha_weight: float = 0.5, composition_weight: float = 0.5
    ):
        super().__init__()
        self.alpha_weight = alpha_weight
        self.composition_weight = composition_weight

    def forward(
        self,
        pred: Tensor,
        alpha: Tensor,
        unknown: Tensor,
        fg: Tensor | None = None,
        bg: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            pred (Tensor[N, 1, H, W]): Predicted mattes.
            alpha (Tensor[N, 1, H, W]): True mattes, from 0 to 1.
            unknown (Tensor[N, 1, H, W]): Bool, the pixels that count.
            fg (Tensor[N, 3, H, W], optional): Foregrounds, from 0 to 255.
            bg (Tensor[N, 3, H, W], optional): Backgrounds, likewise.

        Returns:
            dict[str, Tensor[]]: ``loss_alpha`` and, with a weight of its
            own, ``loss_composition``; at least in float32.

        Raises:
            ValueError: If the shapes differ, or foreground or background
                is missing.
        """
        if not pred.shape == alpha.shape == unknown.shape:
            raise ValueError(
                'MattingLoss: expected prediction, matte and unknown region '
                f'of one shape, got {list(pred.shape)}, {list(alpha.shape)} '
                f'and {list(unknown.shape)}; let the pipeline crop all alike.'
            )
        if self.composition_weight and (fg is None or bg is None):
            raise ValueError(
                'MattingLoss: expected samples with gt_fg and gt_bg for the '
                'loss of the composite, got none; add them in the pipeline, '
                'or set composition_weight=0.'
            )
        dtype = accumulate_dtype(pred.dtype)
        error = (pred.to(dtype) - alpha) * unknown
        weight = 1 / (len(pred) * (unknown.sum((1, 2, 3)) + 1).to(dtype))

        def mean(error):
            root = (error.square() + EPS).sqrt()
            return (root.sum((1, 2, 3)) * weight).sum()

        losses = dict(loss_alpha=self.alpha_weight * mean(error))
        if self.composition_weight:
            composition = mean(error * ((fg - bg) / 255))
            losses['loss_composition'] = self.composition_weight * composition
        return losses
