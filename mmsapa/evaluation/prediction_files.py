"""Files of what is predicted for images."""

import os.path as osp

import mmcv
import numpy as np


class PredictionFiles:
    """PNG files with the names of the images, each of one image.

    Args:
        output_dir (str): Folder that gets them.
        img_root (str, optional): Folder of the images, if they have the same
            names in several folders of it: the files lie in ``output_dir`` as
            the images do in it. Default: None, all in one folder.
    """

    def __init__(self, output_dir: str, img_root: str | None = None):
        self.output_dir, self.img_root = output_dir, img_root
        self._images = {}  # by the files of their predictions

    def write(self, img_path: str, pixels: np.ndarray) -> None:
        """Write the prediction of an image.

        Args:
            img_path (str): The image's file.
            pixels (ndarray): uint8 or uint16, [H, W].

        Raises:
            OSError: If the file cannot be written.
            ValueError: If it has the prediction of another image, or the
                image is not in ``img_root``.
        """
        inside = osp.relpath(img_path, self.img_root or osp.dirname(img_path))
        if inside.split(osp.sep)[0] == osp.pardir:
            raise ValueError(
                f'{img_path}: expected an image in img_root, {self.img_root}, '
                'got one elsewhere; name the folder of all images in the '
                "metric's img_root."
            )
        path = osp.join(self.output_dir, osp.splitext(inside)[0] + '.png')
        other = self._images.setdefault(path, img_path)
        if other != img_path:
            raise ValueError(
                f'{path}: expected the prediction of one image, got those of '
                f'{other} and {img_path}; name the folder of both in the '
                "metric's img_root."
            )
        mmcv.imwrite(pixels, path)
