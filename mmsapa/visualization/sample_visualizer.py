"""A visualizer that draws what is predicted for an image as one picture."""

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer


class SampleVisualizer(Visualizer):
    """Draws image, ground truth and prediction side by side.

    A base class; arguments are those of mmengine's Visualizer.
    """

    def draw_sample(
        self, name: str, image: np.ndarray, data_sample, draw_gt: bool
    ) -> np.ndarray:
        """Draw a picture.

        Args:
            name (str): Of the image.
            image (ndarray): RGB, uint8, [H, W, 3].
            data_sample (BaseDataElement | None): With what is predicted.
            draw_gt (bool): Draw the ground truth, if known.

        Returns:
            ndarray: RGB, uint8, [H, W, 3].

        Raises:
            ValueError: If nothing is predicted, or maps do not have the size
                of the image.
        """
        raise NotImplementedError

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample=None,
        draw_gt: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs,
    ) -> None:
        """Draw what is predicted for an image, and keep it.

        Args:
            name (str): Of the image.
            image (ndarray): RGB, uint8, [H, W, 3].
            data_sample (BaseDataElement): With what is predicted.
            draw_gt (bool): Draw the ground truth, if known. Default: True.
            show (bool): Show a window, too. Default: False.
            wait_time (float): Seconds that it stays open. Default: 0.
            out_file (str, optional): File to write. Default: None, which is
                for the backends to keep.
            step (int): Of the training. Default: 0.
            **kwargs: Not used.

        Raises:
            ValueError: As :meth:`draw_sample`.
        """
        picture = self.draw_sample(name, image, data_sample, draw_gt)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file:
            mmcv.imwrite(picture[..., ::-1], out_file)
        else:
            self.add_image(name, picture, step)
