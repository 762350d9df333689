"""Max unpooling, an upsample layer."""

import torch.nn.functional as F
from torch import Tensor

from .guided import GuidedUpsampler


class MaxUnpool(GuidedUpsampler):
    """Max unpooling by the maxima of the guide.

    A value goes where the guide has the maximum of its cell, channel by
    channel; all other pixels are zero. SegNet's decoder upsamples this way,
    with the encoder's map before its max-pool as guide
    (https://arxiv.org/abs/1511.00561, section 3): pooling it once more finds
    the maxima that the encoder found.

    At odd sizes a guide that was pooled by rounding up has a last cell that
    is cut off. The last row or column of one that was pooled by rounding
    down is in no cell, and stays zero.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide, as many as
            ``in_channels``. Default: ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``, the side of
            a cell. Default: 2.

    Raises:
        ValueError: If guide and ``x`` have different numbers of channels.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
    ):
        super().__init__(in_channels, guide_channels, scale_factor)
        if self.guide_channels != in_channels:
            raise ValueError(
                'MaxUnpool: expected as many channels in the guide as in x, '
                f'got {self.guide_channels} and {in_channels}; take another '
                'upsample layer.'
            )

    def reset_parameters(self):
        """Do nothing: there are no parameters."""

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """Place the values of ``x`` at the maxima of the guide.

        Args:
            x (Tensor[N, in_channels, H, W]): Decoder feature, low
                resolution.
            guide (Tensor[N, in_channels, Hq, Wq]): The map before it was
                pooled; (H - 1) * s < Hq < (H + 1) * s, and Wq likewise.

        Returns:
            Tensor[N, in_channels, Hq, Wq]: As
            ``torch.nn.functional.max_unpool2d`` returns it, with the indices
            of ``max_pool2d(guide, s, s, return_indices=True)``.

        Raises:
            TypeError: If there is no guide.
            ValueError: If channels or sizes do not match.
        """
        self._fit(x, guide)  # raises; the layer needs no more rows of x
        (n, c, h, w), s = x.shape, self.scale_factor
        # To whole cells: more pixels, of which none is a maximum, or fewer.
        below, right = h * s - guide.shape[2], w * s - guide.shape[3]
        cells = F.pad(guide, [0, right, 0, below], value=float('-inf'))
        _, indices = F.max_pool2d(cells, s, s, return_indices=True)
        # As max_unpool2d, which older versions have in fewer dtypes.
        out = x.new_zeros(n, c, h * s * w * s)
        out = out.scatter(2, indices.flatten(2), x.flatten(2))
        return F.pad(out.view(n, c, h * s, w * s), [0, -right, 0, -below])
