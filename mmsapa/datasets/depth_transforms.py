"""Loading of depth maps, and BTS's augmentation of them.

The rest of BTS's pipeline are MMSegmentation's own transforms, which follow
the depth map because it is one of the ``seg_fields``. In order::

    train_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmsapa.LoadDepthAnnotation'),
        dict(type='mmsapa.FixedCrop', rows=(45, 472), columns=(43, 608)),
        # Without seg_pad_val, corners would be 255 m away.
        dict(type='RandomRotate', prob=1.0, degree=2.5, seg_pad_val=0),
        dict(type='RandomCrop', crop_size=(416, 544)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmsapa.RandomGammaColor'),
        dict(type='PackSegInputs'),
    ]

Depth is never scaled: an object that is cut out larger is not nearer.
"""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine import fileio
from mmseg.datasets import transforms
from mmseg.utils import datafrombytes

from mmsapa.engine.config import ConfigError
from mmsapa.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadDepthAnnotation(transforms.LoadDepthAnnotation):
    """Load a depth map in meters from a PNG of 16 bits and one channel.

    It adds ``gt_depth_map``, float32, [H, W], meters; 0 is no value.

    Args:
        depth_rescale_factor (float): Meters of a step. Default: 1e-3, for
            the millimeters of NYU Depth v2; KITTI's is 1 / 256.
        backend_args (dict, optional): Of mmengine's file backend.

    Raises:
        ConfigError: If the file cannot be read, has 8 bits or several
            channels, or is not of the size of the image.
    """

    def __init__(
        self,
        depth_rescale_factor: float = 1e-3,
        backend_args: dict | None = None,
    ):
        super().__init__(
            depth_rescale_factor=depth_rescale_factor,
            backend_args=backend_args,
        )

    def transform(self, results: dict) -> dict:
        """Load the file ``depth_map_path``, if there is one.

        Args:
            results (dict): Of the data set; ``ori_shape`` of the image is
                compared if it was loaded before. An image of one's own, as
                ``mmseg.apis.inference_model`` takes it, has no depth map.

        Returns:
            dict: The same, with the depth map as one of the ``seg_fields``.
        """
        path = results.get('depth_map_path')
        if path is None:
            return results
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise ConfigError(
                f'{path}: expected a depth map, got what cannot be read: '
                f'{error}'
            ) from error
        # OpenCV raises an error for an empty file, and returns None for
        # another kind.
        steps = datafrombytes(content, 'cv2') if content else None
        if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
            raise ConfigError(
                f'{path}: expected a depth map, a PNG of 16 bits and one '
                f'channel, got {_kind(steps)}; write depth in meters divided '
                'by depth_rescale_factor.'
            )
        size = results.get('ori_shape', steps.shape)
        if steps.shape != tuple(size[:2]):
            raise ConfigError(
                f'{path}: expected a depth map of the size of its image, '
                f'{size[1]} x {size[0]}, got {steps.shape[1]} x '
                f'{steps.shape[0]}; pair it with its image.'
            )
        depth = steps.astype(np.float32) * np.float32(
            self.depth_rescale_factor
        )
        results['gt_depth_map'] = depth
        results['seg_fields'].append('gt_depth_map')
        results['depth_rescale_factor'] = self.depth_rescale_factor
        return results


def _kind(image):
    if image is None:
        return 'no image'
    channels = image.shape[2] if image.ndim == 3 else 1
    return f'{8 * image.itemsize} bits and {channels} channels'


@TRANSFORMS.register_module()
class FixedCrop(BaseTransform):
    """Cut the same rows and columns out of every image and its maps.

    Args:
        rows (tuple[int, int]): First row, and the one after the last.
            BTS's of NYU Depth v2 are (45, 472), and columns (43, 608): what
            the frame without depth leaves of 480x640.
        columns (tuple[int, int]): The same of columns.

    Raises:
        ValueError: If a range is empty.
        ConfigError: If an image does not have these rows and columns.
    """

    def __init__(self, rows: tuple[int, int], columns: tuple[int, int]):
        for name, (first, stop) in dict(rows=rows, columns=columns).items():
            if not 0 <= first < stop:
                raise ValueError(
                    f'FixedCrop: expected {name} such as (45, 472), got '
                    f'{(first, stop)}.'
                )
        self.rows, self.columns = tuple(rows), tuple(columns)

    def transform(self, results: dict) -> dict:
        """Cut ``img`` and all ``seg_fields``.

        Args:
            results (dict): Of the steps before.

        Returns:
            dict: The same, with a new ``img_shape``.
        """
        height, width = results['img'].shape[:2]
        if self.rows[1] > height or self.columns[1] > width:
            raise ConfigError(
                f'{results.get("img_path", "FixedCrop")}: expected an image '
                f'of at least {self.columns[1]} x {self.rows[1]}, which '
                f'FixedCrop cuts, got {width} x {height}; set its rows and '
                'columns for this size.'
            )
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = results[key][
                slice(*self.rows), slice(*self.columns)
            ]
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self):
        return f'FixedCrop(rows={self.rows}, columns={self.columns})'


@TRANSFORMS.register_module()
class RandomGammaColor(BaseTransform):
    """Change gamma, brightness and color of an image, in floats.

    With v in [0, 1], v ** gamma * brightness * color, clipped to [0, 1];
    all factors are uniform, color has one for each channel.

    Args:
        prob (float): How often. Default: 0.5.
        gamma (tuple[float, float]): Range. Default: (0.9, 1.1).
        brightness (tuple[float, float]): Range. Default: (0.75, 1.25).
        color (tuple[float, float]): Range. Default: (0.9, 1.1).

    Raises:
        ValueError: If ``prob`` is no probability or a range is not of
            positive numbers in order.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma: tuple[float, float] = (0.9, 1.1),
        brightness: tuple[float, float] = (0.75, 1.25),
        color: tuple[float, float] = (0.9, 1.1),
    ):
        if not 0 <= prob <= 1:
            raise ValueError(
                'RandomGammaColor: expected prob to be from 0 to 1, got '
                f'{prob}.'
            )
        ranges = dict(gamma=gamma, brightness=brightness, color=color)
        for name, (low, high) in ranges.items():
            if not 0 < low <= high:
                raise ValueError(
                    f'RandomGammaColor: expected {name} to be a range of '
                    f'positive numbers, such as (0.9, 1.1), got {low, high}.'
                )
        self.prob, self.ranges = prob, ranges

    @cache_randomness
    def draw(self, channels: int) -> tuple[float, np.ndarray] | None:
        """Draw exponent and factors, or None for an image to be left alone."""
        if np.random.rand() >= self.prob:
            return None
        gamma = np.random.uniform(*self.ranges['gamma'])
        brightness = np.random.uniform(*self.ranges['brightness'])
        color = np.random.uniform(*self.ranges['color'], channels)
        return gamma, brightness * color

    def transform(self, results: dict) -> dict:
        """Change ``img``.

        Args:
            results (dict): Of the steps before; ``img`` [H, W, C] has values
                from 0 to 255.

        Returns:
            dict: The same; if it was changed, ``img`` is float32, from 0 to
            255, not rounded.
        """
        drawn = self.draw(results['img'].shape[-1])
        if drawn is not None:
            gamma, factors = drawn
            image = results['img'].astype(np.float32) / 255
            image = image**gamma * factors.astype(np.float32)
            results['img'] = 255 * image.clip(0, 1)
        return results

    def __repr__(self):
        return f'RandomGammaColor(prob={self.prob}, {self.ranges})'
