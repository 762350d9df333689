"""ResNet with the map before its max-pool."""

from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from mmseg.models.backbones import ResNet
from torch import Tensor

from ..registry import MODELS


@MODELS.register_module()
class StemResNet(ResNet):
    """MMSegmentation's ResNet that returns the stem's map too.

    BTS freezes the stem's convolution and the weight and bias of every batch
    norm but those of the shortcuts. All norms still run on the batch's
    statistics and update their running ones. Parameter names are
    torchvision's, so that its weights load by ``init_cfg``.

    Args:
        depth (int): 18, 34, 50, 101 or 152. Default: 50.
        freeze (bool): Whether to freeze as BTS does; False is for training
            from scratch. Default: True.
        **kwargs: As in :class:`mmseg.models.backbones.ResNet`, without
            ``deep_stem``.
    """

    def __init__(self, depth: int = 50, freeze: bool = True, **kwargs):
        super().__init__(depth=depth, deep_stem=False, **kwargs)
        if freeze:
            self.conv1.requires_grad_(False)
            for name, module in self.named_modules():
                if isinstance(module, _BatchNorm) and 'downsample' not in name:
                    module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract the maps.

        Args:
            x (Tensor[N, 3, H, W]): Normalized images.

        Returns:
            tuple[Tensor, ...]: The stem's map after norm and ReLU, of stride
            2, and those of the stages of ``out_indices``, of strides 4, 8,
            16 and 32; ResNet-50's have 64, 256, 512, 1024 and 2048 channels.
        """
        stem = self.relu(self.norm1(self.conv1(x)))
        x, maps = self.maxpool(stem), [stem]
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)
