"""From images and trimaps to what a mattor takes."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..registry import MODELS


@MODELS.register_module()
class MattingDataPreprocessor(BaseDataPreprocessor):
    """Normalizes images, appends their trimaps and pads the sides.

    Padding is at the bottom and on the right, by reflection, as in the
    evaluation of A2U matting.

    Args:
        mean (Sequence[float]): Of R, G and B, from 0 to 255. Default:
            ImageNet's.
        std (Sequence[float]): Likewise.
        bgr_to_rgb (bool): Whether images come as BGR, as MMCV loads them.
            Default: True.
        size_divisor (int): Sides become multiples of it. Default: 16.
        non_blocking (bool): As in mmengine's. Default: False.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        bgr_to_rgb: bool = True,
        size_divisor: int = 16,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking)
        for name, values in dict(mean=mean, std=std).items():
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.bgr_to_rgb = bgr_to_rgb
        self.size_divisor = size_divisor

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data (dict): ``inputs``, a Tensor[3, H, W] for each image, uint8
                or float32 from 0 to 255; ``data_samples``, for each a
                :class:`MattingDataSample` with ``trimap``.
            training (bool): Whether the images must be of one size.
                Default: False.

        Returns:
            dict: ``inputs``, float32: Tensor[N, 4, H, W], or a list of
            Tensor[4, H, W] if the sizes differ; the fourth channel is the
            trimap over 255. ``data_samples`` as they came.

        Raises:
            ValueError: If the samples do not have a trimap of the image's
                size each, or in training sizes differ.
        """
        data = self.cast_data(data)
        samples = data.get('data_samples') or [None] * len(data['inputs'])
        inputs = [
            self._prepare(image, sample)
            for image, sample in zip(data['inputs'], samples, strict=True)
        ]
        sizes = {tuple(x.shape[1:]) for x in inputs}
        if len(sizes) == 1:
            inputs = torch.stack(inputs)
        elif training:
            raise ValueError(
                'MattingDataPreprocessor: expected a training batch of one '
                f'size, got {sorted(sizes)}; let the pipeline crop them.'
            )
        return dict(inputs=inputs, data_samples=data.get('data_samples'))

    def _prepare(self, image, sample):
        if sample is None or 'trimap' not in sample:
            raise ValueError(
                'MattingDataPreprocessor: expected data samples with a '
                'trimap, got '
                f'{None if sample is None else sample.keys()}; a mattor '
                'needs one for every image.'
            )
        trimap = sample.trimap.data
        if trimap.shape != (1, *image.shape[1:]):
            raise ValueError(
                'MattingDataPreprocessor: expected a trimap of shape '
                f'{[1, *image.shape[1:]]}, as the image has, got '
                f'{list(trimap.shape)}; resize both alike.'
            )
        if self.bgr_to_rgb:
            image = image.flip(0)
        image = (image.float() - self.mean) / self.std
        x = torch.cat([image, trimap.float() / 255])
        for dim in 1, 2:
            x = pad_by_reflection(x, dim, self.size_divisor)
        return x


def pad_by_reflection(x: Tensor, dim: int, divisor: int) -> Tensor:
    """Pad one side at its end, to a multiple of ``divisor``.

    PyTorch's reflection needs a side that is longer than what is padded;
    here a short one is reflected to and fro.

    Args:
        x (Tensor): Any.
        dim (int): Which of its sides.
        divisor (int): Of the new length.

    Returns:
        Tensor: ``x``, or a padded copy.
    """
    length = x.shape[dim]
    padded = -(-length // divisor) * divisor
    if padded == length:
        return x
    last = length - 1
    index = torch.arange(padded, device=x.device) % max(2 * last, 1)
    return x.index_select(dim, last - (index - last).abs())
