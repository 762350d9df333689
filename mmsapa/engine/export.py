"""Models of the libraries as functions of one tensor, for export."""

from torch import Tensor, nn

from mmsapa.engine.config import ConfigError, kind_of


class Dense(nn.Module):
    """A segmentor or depth estimator from normalized image to its maps.

    Args:
        model (nn.Module): Of :func:`mmsapa.engine.inference.load_model`.

    Raises:
        ConfigError: If the model is of another kind.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        kind = kind_of(model.cfg)
        if kind not in ('segmentor', 'depth estimator'):
            raise ConfigError(
                f'{model.cfg.filename}: expected a segmentor or depth '
                f'estimator to export, got a {kind}; export its backbone and '
                'neck, or its decoder, by mmsapa.deployment.export_onnx.'
            )
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits, or depth in meters, of the size of the image.

        Args:
            image (Tensor[N, 3, H, W]): As the preprocessor makes it.

        Returns:
            Tensor[N, K, H, W]: K classes, or 1 for depth.
        """
        size = image.shape[2:]
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
        return self.model.encode_decode(image, [meta])
