"""Boundary IoU of Cheng et al., CVPR 2021."""

import math
from collections import OrderedDict

import cv2
import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor

from ..registry import METRICS


@METRICS.register_module()
class BoundaryIoU(IoUMetric):
    """IoU of the pixels near the contours of masks.

    Section 4 of `Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation <https://arxiv.org/abs/2103.16562>`_: let G be the pixels of a
    class in the ground truth, P in the prediction; G_d and P_d are those
    pixels of G and P that are within d pixels of the contour of their own
    mask. Boundary IoU is

        |G_d ∩ P_d| / |G_d ∪ P_d|.

    d is ``dilation_ratio`` times the diagonal of the image in pixels,
    rounded, and at least 1. As in the authors' code, the pixels near the
    contour are those that d erosions by 3x3 pixels remove from a mask, and
    outside the image there is no mask, so that a mask which the border cuts
    off has its contour there.

    The paper's masks are those of objects. Here intersections and unions of
    each class are summed over all images, as MMSegmentation's IoUMetric sums
    those of its IoU, and the mean is over classes; classes that are neither
    in the ground truth nor in a prediction are left out. Pixels that the
    ground truth ignores belong to no mask, neither in the ground truth nor in
    the prediction, so that both have a contour around them and a prediction
    that is correct everywhere else has 100.

    Masks are those of labels 0 to C - 1 for C classes. A single class is the
    mask of label 1, and 0 is its background: a head with one output channel
    is trained for that, and predicts it by its threshold.

    In a config, by itself or with others::

        val_evaluator = [
            dict(type='IoUMetric'),
            dict(type='mmsapa.BoundaryIoU'),
        ]

    It reports ``mBIoU``, and the ``BIoU`` of each class as a table.

    Args:
        dilation_ratio (float): d over the diagonal of the image. Default:
            0.02, which is the paper's.
        ignore_index (int): Label of pixels that the ground truth ignores.
            Default: 255.
        nan_to_num (float, optional): Replaces the figure of a class that is
            in no mask. Default: None, which leaves the class out.
        collect_device (str): As in IoUMetric. Default: ``'cpu'``.
        output_dir (str, optional): Folder that gets predictions, as in
            IoUMetric. Default: None.
        format_only (bool): As in IoUMetric. Default: False.
        prefix (str, optional): As in IoUMetric. Default: None.

    Raises:
        ValueError: If ``dilation_ratio`` is not a positive number.
        TypeError: If there are other arguments, such as the ``iou_metrics``
            of an IoUMetric that a config inherits.
    """

    def __init__(
        self,
        dilation_ratio: float = 0.02,
        ignore_index: int = 255,
        nan_to_num: float | None = None,
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        **others,
    ):
        if others:
            raise TypeError(
                'BoundaryIoU: expected dilation_ratio, ignore_index, '
                'nan_to_num, collect_device, output_dir, format_only and '
                f'prefix, got {", ".join(others)} too; if a config inherits '
                'these from an IoUMetric, add _delete_=True to that of '
                'BoundaryIoU.'
            )
        super().__init__(
            ignore_index=ignore_index,
            nan_to_num=nan_to_num,
            collect_device=collect_device,
            output_dir=output_dir,
            format_only=format_only,
            prefix=prefix,
        )
        if not 0 < dilation_ratio < math.inf:
            raise ValueError(
                'BoundaryIoU: expected dilation_ratio to be a part of the '
                f"image's diagonal, such as 0.02, got {dilation_ratio}."
            )
        self.dilation_ratio = dilation_ratio

    def intersect_and_union(
        self,
        pred_label: Tensor,
        label: Tensor,
        num_classes: int,
        ignore_index: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Count the pixels near contours in one image.

        Args:
            pred_label (Tensor[H, W]): Predicted labels; binary segmentors
                give them as floats.
            label (Tensor[H, W]): Ground truth, on the same device.
            num_classes (int): Number of classes.
            ignore_index (int): Label of pixels to ignore.

        Returns:
            tuple[Tensor[num_classes], ...]: Pixels of G_d ∩ P_d, G_d ∪ P_d,
            P_d and G_d of each class, float64.
        """
        masks = [x.to('cpu', torch.int64).numpy() for x in (pred_label, label)]
        ignored = masks[1] == ignore_index
        distance = boundary_distance(ignored.shape, self.dilation_ratio)
        pred, true = (
            np.where(
                ignored | ~near_contour(mask, ignored, distance), -1, mask
            )
            for mask in masks
        )
        first = 1 if num_classes == 1 else 0
        stop = first + num_classes
        p, g, both = (
            np.bincount(labels[labels >= 0], minlength=stop)[first:stop]
            for labels in (pred, true, pred[pred == true])
        )
        return tuple(
            torch.from_numpy(count.astype(np.float64))
            for count in (both, p + g - both, p, g)
        )

    def total_area_to_metrics(
        self,
        total_area_intersect: Tensor,
        total_area_union: Tensor,
        total_area_pred_label: Tensor,
        total_area_label: Tensor,
        metrics: list[str] | None = None,
        nan_to_num: float | None = None,
        beta: int = 1,
    ) -> OrderedDict:
        """Divide the sums; arguments as in IoUMetric.

        Returns:
            OrderedDict: ``BIoU`` of each class, from 0 to 1.
        """
        figures = (total_area_intersect / total_area_union).numpy()
        if nan_to_num is not None:
            figures = np.nan_to_num(figures, nan=nan_to_num)
        return OrderedDict(BIoU=figures)


def boundary_distance(size: tuple[int, int], dilation_ratio: float) -> int:
    """Return d in pixels, for an image of a size [H, W]."""
    return max(1, round(dilation_ratio * math.hypot(*size)))


def near_contour(
    labels: np.ndarray, ignored: np.ndarray, distance: int
) -> np.ndarray:
    """Find the pixels near the contour of the mask that they belong to.

    Args:
        labels (ndarray[H, W]): Integers, the masks of all classes in one.
        ignored (ndarray[H, W]): Bool, pixels that belong to none.
        distance (int): How near, in pixels.

    Returns:
        ndarray[H, W]: Bool; undefined in ignored pixels.
    """
    # Masks do not overlap, so that all are eroded at once: what is left of
    # them is where no pixel nearby has another label, neither a lower nor a
    # higher one. Outside all masks is 0.
    labels = np.where(ignored, 0, labels + 1).astype(np.uint16)
    kernel = np.ones((3, 3), np.uint8)
    lowest, highest = (
        reach(
            labels,
            kernel,
            iterations=distance,
            borderType=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        for reach in (cv2.erode, cv2.dilate)
    )
    return (lowest != labels) | (highest != labels)
