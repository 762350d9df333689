"""Loading of what matting needs, and packing of what a mattor gets."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData

from mmsapa.engine.config import ConfigError
from mmsapa.matting.data_sample import MattingDataSample
from mmsapa.registry import TRANSFORMS

# The channels of a gray image may differ by so much, as a JPEG's do.
_GRAY = 16


def read_colors(path: str) -> np.ndarray:
    """Read an image's colors as they are stored, without turning it.

    An alpha map is not turned either, and Adobe's script turns nothing.

    Args:
        path (str): File.

    Returns:
        ndarray: BGR, uint8, [H, W, 3].

    Raises:
        ConfigError: If it is missing or no image.
    """
    return _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_gray(path: str) -> np.ndarray:
    """Read an alpha map or a trimap.

    Args:
        path (str): File of one channel, or a gray image in a palette or in
            three channels, of which the first is taken.

    Returns:
        ndarray: uint8 or uint16, as stored, [H, W].

    Raises:
        ConfigError: If it is missing, no image, has colors or is partly
            transparent: then it is no map.
    """
    pixels = _read(path, cv2.IMREAD_UNCHANGED)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ConfigError(
            f'{path}: expected 8 or 16 bits a channel, got {pixels.dtype}; '
            'write it with 8 bits.'
        )
    if pixels.ndim == 2:
        return pixels
    colors, scale = pixels[..., :3], np.iinfo(pixels.dtype).max // 255
    spread = cv2.absdiff(colors[..., 0], colors[..., 1]).max()
    spread = max(spread, cv2.absdiff(colors[..., 1], colors[..., 2]).max())
    opaque = pixels.shape[2] < 4 or (pixels[..., 3] == 255 * scale).all()
    if spread > _GRAY * scale or not opaque:
        kind = 'colors' if opaque else 'transparent pixels'
        raise ConfigError(
            f'{path}: expected a gray image, got {kind}; write the map into '
            'one channel.'
        )
    # OpenCV's order is BGR.
    return np.ascontiguousarray(colors[..., 2])


def _read(path, flags):
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ConfigError(
            f'{path}: expected an image, got what cannot be read: {error}'
        ) from error
    # OpenCV raises an error for an empty file, and returns None for another
    # kind.
    pixels = cv2.imdecode(content, flags) if content.size else None
    if pixels is None:
        raise ConfigError(
            f'{path}: expected an image, got what OpenCV cannot read; write '
            'it again, as PNG, say.'
        )
    return pixels


def load_alpha(path: str) -> np.ndarray:
    """Read an alpha map.

    Args:
        path (str): File as for :func:`read_gray`.

    Returns:
        ndarray: float32 from 0 to 1, [H, W].

    Raises:
        ConfigError: As in :func:`read_gray`.
    """
    pixels = read_gray(path)
    return pixels / np.float32(np.iinfo(pixels.dtype).max)


def check_size(path: str, pixels: np.ndarray, size: tuple, of: str):
    """Check that a map has the size of what it belongs to.

    Args:
        path (str): Its file.
        pixels (ndarray): [H, W, ...].
        size (tuple): H and W that it must have.
        of (str): What it belongs to.

    Raises:
        ConfigError: If it has another.
    """
    if pixels.shape[:2] != tuple(size[:2]):
        raise ConfigError(
            f'{path}: expected the size of {of}, {size[1]} x {size[0]}, got '
            f'{pixels.shape[1]} x {pixels.shape[0]}; pair it with its image.'
        )


@TRANSFORMS.register_module()
class LoadForeground(BaseTransform):
    """Load the colors of a foreground.

    Required keys: ``fg_path``. Added: ``fg``, BGR, uint8, [H, W, 3], and
    ``ori_shape``.

    Raises:
        ConfigError: If the file is missing or no image.
    """

    def transform(self, results: dict) -> dict:
        """Load the file."""
        results['fg'] = read_colors(results['fg_path'])
        results['ori_shape'] = results['fg'].shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadBackground(BaseTransform):
    """Load a background.

    Required keys: ``bg_path``. Added: ``bg``, BGR, uint8, [h, w, 3], of a
    size of its own.

    Raises:
        ConfigError: If the file is missing or no image.
    """

    def transform(self, results: dict) -> dict:
        """Load the file."""
        results['bg'] = read_colors(results['bg_path'])
        return results


@TRANSFORMS.register_module()
class LoadAlpha(BaseTransform):
    """Load the true alpha of a foreground or an image that was loaded before.

    Required keys: ``alpha_path``; ``fg`` or ``img``. Added: ``alpha``,
    float32 from 0 to 1, [H, W]. Files of 8 and of 16 bits are read, and of
    several channels the first, if the file is gray.

    Raises:
        ConfigError: If the file is missing, is not gray or has another size.
    """

    def transform(self, results: dict) -> dict:
        """Load the file."""
        path = results['alpha_path']
        results['alpha'] = load_alpha(path)
        of = 'img' if 'img' in results else 'fg'
        if of in results:
            name = results.get(f'{of}_path', of)
            check_size(path, results['alpha'], results[of].shape, name)
        return results


@TRANSFORMS.register_module()
class LoadTrimap(BaseTransform):
    """Load the trimap of an image that was loaded before.

    Required keys: ``trimap_path``, ``img``. Added: ``trimap``, uint8,
    [H, W], as the file has it: 0 is background, 255 is foreground, and all
    between is unknown, be it 128 or 127.

    Raises:
        ConfigError: If the file is missing, is not gray, has more than 8
            bits or another size.
    """

    def transform(self, results: dict) -> dict:
        """Load the file."""
        path = results['trimap_path']
        trimap = read_gray(path)
        if trimap.dtype != np.uint8:
            raise ConfigError(
                f'{path}: expected a trimap of 8 bits, got 16; write 0, 128 '
                'and 255.'
            )
        if 'img' in results:
            name = results.get('img_path', 'img')
            check_size(path, trimap, results['img'].shape, name)
        results['trimap'] = trimap
        return results


@TRANSFORMS.register_module()
class PackMattingInputs(BaseTransform):
    """Pack an image and its maps as a mattor takes them.

    Required keys: ``img``, and of ``trimap``, ``alpha``, ``fg`` and ``bg``
    those there are. What comes out is a dict of ``inputs``, Tensor[3, H, W]
    in BGR, uint8 or float32 from 0 to 255, and ``data_samples``, a
    :class:`~mmsapa.matting.MattingDataSample`.

    Args:
        meta_keys (Sequence[str]): What its metainfo keeps, if it is there.
    """

    def __init__(
        self,
        meta_keys=(
            *('img_path', 'alpha_path', 'trimap_path', 'fg_path', 'bg_path'),
            *('ori_shape', 'img_shape', 'sample_idx'),
        ),
    ):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack what the steps before made."""
        image = results['img']
        sample = MattingDataSample(
            metainfo={k: results[k] for k in self.meta_keys if k in results}
        )
        sample.set_metainfo(dict(img_shape=image.shape[:2]))
        if 'trimap' in results:
            trimap = torch.from_numpy(results['trimap'][None].copy())
            sample.trimap = PixelData(data=trimap)
        if 'alpha' in results:
            alpha = torch.from_numpy(results['alpha'][None].copy())
            sample.gt_alpha = PixelData(data=alpha)
        for key in ('fg', 'bg'):
            if key in results:
                colors = _channels_first(results[key]).float()
                sample.set_field(PixelData(data=colors), f'gt_{key}')
        return dict(inputs=_channels_first(image), data_samples=sample)

    def __repr__(self):
        return f'PackMattingInputs(meta_keys={self.meta_keys})'


def _channels_first(image):
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
