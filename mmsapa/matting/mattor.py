"""The mattor: from an image and its trimap to its matte."""

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor

from ..registry import MODELS
from .data_sample import MattingDataSample, is_unknown
from .tiles import STRIDE, predict_in_tiles, predict_whole


@MODELS.register_module()
class Mattor(BaseModel):
    """Encoder and decoder that predict a matte from an image and a trimap.

    Args:
        backbone (dict): Config of the encoder, such as
            :class:`MattingResNet`.
        decode_head (dict): Config of the decoder, such as :class:`A2UHead`.
        loss (dict, optional): Config of the loss. Default: None, which is
            :class:`MattingLoss`.
        data_preprocessor (dict, optional): Default: None, which is
            :class:`MattingDataPreprocessor`.
        test_cfg (dict, optional): ``tile_size``, the side in pixels of tiles
            to predict large images in, a multiple of 16 (default: None, the
            whole image at once), and ``overlap``, what is computed around a
            tile and cut off, a multiple of 16 (default: 208).
        init_cfg (dict, optional): As in mmengine's BaseModule.

    Raises:
        TypeError: If ``test_cfg`` has other keys.
        ValueError: If tiles are no multiples of 16.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        loss: dict | None = None,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(
            data_preprocessor or dict(type='mmsapa.MattingDataPreprocessor'),
            init_cfg,
        )
        self.backbone = MODELS.build(backbone)
        self.decode_head = MODELS.build(decode_head)
        self.criterion = MODELS.build(loss or dict(type='mmsapa.MattingLoss'))
        self._set_tiles(**(test_cfg or {}))

    def _set_tiles(self, tile_size=None, overlap=208):
        if (
            (tile_size is not None and tile_size < 1)
            or overlap < 0
            or ((tile_size or 0) % STRIDE or overlap % STRIDE)
        ):
            raise ValueError(
                'Mattor: expected test_cfg to have a tile_size, or None, and '
                f'an overlap that are multiples of {STRIDE}, got {tile_size} '
                f'and {overlap}.'
            )
        self.tile_size, self.overlap = tile_size, overlap

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[MattingDataSample] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[MattingDataSample]:
        """Run encoder and decoder.

        Args:
            inputs (Tensor[N, 4, H, W]): Of the preprocessor; in prediction
                perhaps a list of Tensor[4, H, W] of different sizes.
            data_samples (list[MattingDataSample], optional): One each.
            mode (str): ``'tensor'``, ``'loss'`` or ``'predict'``. Default:
                ``'tensor'``.

        Returns:
            Tensor[N, 1, H, W] | dict[str, Tensor] | list[MattingDataSample]:
            Mattes as they are trained, not cut off at 0 and 1; losses by
            their names; or the samples with ``pred_alpha``.

        Raises:
            RuntimeError: If there is no such mode.
        """
        if mode == 'tensor':
            return self.decode_head(self.backbone(inputs))
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise RuntimeError(
            "Mattor: expected mode 'tensor', 'loss' or 'predict', got "
            f'{mode!r}.'
        )

    def loss(
        self, inputs: Tensor, data_samples: list[MattingDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            inputs (Tensor[N, 4, H, W]): Of the preprocessor.
            data_samples (list[MattingDataSample]): With ``trimap``,
                ``gt_alpha``, ``gt_fg`` and ``gt_bg``.

        Returns:
            dict[str, Tensor]: Losses by their names.

        Raises:
            ValueError: If trimaps or true mattes are missing.
        """
        for key in 'trimap', 'gt_alpha':
            if any(key not in sample for sample in data_samples):
                raise ValueError(
                    f'Mattor: expected training samples with {key}, got '
                    f'{data_samples[0].keys()}; add it in the pipeline.'
                )
        truth = {
            key: torch.stack([sample.get(key).data for sample in data_samples])
            for key in ('trimap', 'gt_alpha', 'gt_fg', 'gt_bg')
            if all(key in sample for sample in data_samples)
        }
        pred = self(inputs)
        height, width = truth['trimap'].shape[2:]
        return self.criterion(
            pred[..., :height, :width],
            truth['gt_alpha'],
            is_unknown(truth['trimap']),
            truth.get('gt_fg'),
            truth.get('gt_bg'),
        )

    def predict(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[MattingDataSample],
    ) -> list[MattingDataSample]:
        """Predict mattes, one image after another.

        Args:
            inputs (Tensor[N, 4, H, W] | list[Tensor[4, H, W]]): Of the
                preprocessor.
            data_samples (list[MattingDataSample]): With ``trimap``.

        Returns:
            list[MattingDataSample]: The samples with ``pred_alpha``: of the
            trimap's size, from 0 to 1, and outside the unknown region what
            the trimap says.

        Raises:
            ImageTooLarge: If there is too little memory for a whole image.
        """
        for x, sample in zip(inputs, data_samples, strict=True):
            known = sample.trimap.data.float() / 255
            alpha = self._predict(x[None])[0]
            alpha = alpha[:, : known.shape[1], : known.shape[2]]
            alpha = self.finish(alpha, known)
            sample.pred_alpha = PixelData(data=alpha)
        return data_samples

    @staticmethod
    def finish(alpha: Tensor, known: Tensor) -> Tensor:
        """Cut mattes off at 0 and 1, and put back what trimaps know.

        Args:
            alpha (Tensor[..., H, W]): As predicted.
            known (Tensor[..., H, W]): Trimaps over 255, float32.

        Returns:
            Tensor[..., H, W]: Float32.
        """
        unknown = (known > 0) & (known < 1)
        return torch.where(unknown, alpha.float().clamp(0, 1), known)

    def _predict(self, x):
        parts = self.backbone, self.decode_head, x
        if self.tile_size and self.tile_size < max(x.shape[2:]):
            return predict_in_tiles(*parts, self.tile_size, self.overlap)
        return predict_whole(*parts)
