"""Models of the libraries as functions of one tensor, for export."""

import torch
from torch import Tensor, nn

from mmsapa.engine.config import ConfigError, kind_of


class Dense(nn.Module):
    """The part of a model that is a function of its normalized images.

    All of a segmentor, depth estimator or mattor. Of a detector, what comes
    before boxes: backbone, neck, and the convolutions of a single-stage head
    or of a region proposal network.

    Args:
        model (nn.Module): Of :func:`mmsapa.engine.inference.load_model`.

    Raises:
        ConfigError: If a detector has no such head.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.kind = kind_of(model.cfg)
        if self.kind == 'detector':
            # A transformer's head takes other than the neck's maps.
            heads = [
                getattr(model, name, None)
                for name in ('rpn_head', 'bbox_head')
            ]
            heads = [x for x in heads if hasattr(x, 'forward_single')]
            if not heads:
                raise ConfigError(
                    f'{model.cfg.filename}: expected a detector whose '
                    'rpn_head or bbox_head takes the maps of its neck one by '
                    f'one, got a {type(model).__name__}; export its backbone '
                    'and neck by mmsapa.deployment.export_onnx.'
                )
            self.head = heads[0]
        self.model = model
        # Sides of images are multiples of it.
        self.stride = 16 if self.kind == 'mattor' else 32

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of :meth:`named` without their names."""
        return tuple(self.named(image).values())

    def named(self, image: Tensor) -> dict[str, Tensor]:
        """Compute maps of images.

        Args:
            image (Tensor[N, C, H, W]): As the preprocessor makes it; a
                mattor's has the trimap for fourth channel.

        Returns:
            dict[str, Tensor]: ``logits`` [N, K, H, W] of K classes,
            ``depth`` [N, 1, H, W] in meters, or ``alpha`` [N, 1, H, W] from
            0 to 1. Of a detector ``maps_0``, …, of the neck, high resolution
            first, and ``head_0_0``, …, which are the head's results: the
            first number is that of the result, the second that of the map.
        """
        if self.kind == 'detector':
            maps = self.model.extract_feat(image)
            results = {f'maps_{i}': x for i, x in enumerate(maps)}
            for i, levels in enumerate(self.head(maps)):
                # Some heads make a map for all levels too.
                levels = [levels] if isinstance(levels, Tensor) else levels
                for j, x in enumerate(levels):
                    results[f'head_{i}_{j}'] = x
            return results
        if self.kind == 'mattor':
            alpha = self.model(image)
            return dict(alpha=self.model.finish(alpha, image[:, 3:]))
        size = image.shape[2:]
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
        out = self.model.encode_decode(image, [meta])
        return {'logits' if self.kind == 'segmentor' else 'depth': out}


def largest_difference(got: list[Tensor], expected: list[Tensor]) -> float:
    """Compare results with those of PyTorch.

    Args:
        got (list[Tensor]): Of any size and floating dtype.
        expected (list[Tensor]): Of the same sizes.

    Returns:
        float: The largest difference, over the largest number of the result
        that it is in; NaN if there is one in either.

    Raises:
        ValueError: If there are more of one than of the other, or of other
            sizes.
    """
    differences = []
    for one, other in zip(got, expected, strict=True):
        if one.shape != other.shape:
            raise ValueError(
                f'expected a result of {list(other.shape)}, got one of '
                f'{list(one.shape)}.'
            )
        largest = other.abs().max()
        tiny = torch.finfo(other.dtype).tiny  # where all is 0
        differences.append((one - other).abs().max() / largest.clamp(min=tiny))
    # Python's max() passes over NaN.
    return float(torch.stack(differences).max())
