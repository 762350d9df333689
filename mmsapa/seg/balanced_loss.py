"""Cross entropy of labeled pixels, with weights of classes."""

import json
from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..ops.checks import accumulate_dtype
from ..registry import MODELS


@MODELS.register_module()
class BalancedCrossEntropyLoss(nn.Module):
    """Mean cross entropy over the labeled pixels, each weighted by its class.

    SegNet's loss (https://arxiv.org/abs/1511.00561, section 3). With weights
    the sum is still divided by the number of labeled pixels, as SegNet's
    authors do. MMSegmentation's CrossEntropyLoss divides by all pixels unless
    ``avg_non_ignore`` is set, and with weights takes no ignored pixel.

    Args:
        class_weight (Sequence[float] | str, optional): A weight for each
            class, or a json file with a list of them, such as the
            ``class_weights.json`` that
            ``tools/dataset_converters/segmentation.py`` writes for
            median-frequency balancing. Default: None, without.
        loss_weight (float): Default: 1.
        loss_name (str): Name in logs. Default: ``'loss_ce'``.

    Raises:
        UserError: If the file of weights cannot be read.
    """

    def __init__(
        self,
        class_weight: Sequence[float] | str | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ):
        super().__init__()
        if isinstance(class_weight, str):
            class_weight = _read_weights(class_weight)
        self.class_weight = class_weight
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor[N, C, H, W]): Logits.
            target (Tensor[N, H, W]): Labels, int64.
            weight (Tensor[N, H, W], optional): A weight for each pixel, of a
                sampler. Default: None.
            ignore_index (int): The label of pixels that are not labeled.
                Default: 255.
            reduction_override (str, optional): ``'none'`` for the loss of
                each pixel, as samplers ask for it. Default: None, the mean.

        Returns:
            Tensor[] | Tensor[N, H, W]: The loss, at least in float32; zero,
            with gradients of zero, if no pixel is labeled.

        Raises:
            ValueError: If there are logits of one class alone, or not one
                weight for each class.
        """
        if pred.shape[1] == 1:
            raise ValueError(
                'BalancedCrossEntropyLoss: expected logits of each class, got '
                'those of one alone, out_channels=1; leave that out, or take '
                "loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)."
            )
        pred = pred.to(accumulate_dtype(pred.dtype))
        weights = None
        if self.class_weight is not None:
            weights = pred.new_tensor(self.class_weight)
            if len(weights) != pred.shape[1]:
                raise ValueError(
                    'BalancedCrossEntropyLoss: expected a class_weight for '
                    f'each of {pred.shape[1]} classes, got {len(weights)}; '
                    'take the weights of this data set.'
                )
        losses = F.cross_entropy(
            pred, target, weights, ignore_index=ignore_index, reduction='none'
        )
        if weight is not None:
            losses = losses * weight
        if reduction_override == 'none':
            return self.loss_weight * losses
        labeled = (target != ignore_index).sum().clamp(min=1)
        return self.loss_weight * losses.sum() / labeled


def _read_weights(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f'class_weight: expected a json file with a list of weights, got '
            f'{path}, which cannot be read: {error}; tools/'
            'dataset_converters/segmentation.py writes one.'
        ) from error
