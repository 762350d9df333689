"""SUN RGB-D, CamVid and Weizmann horses, for MMSegmentation."""

import os.path as osp

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from mmsapa.datasets.pairs_converter import KEPT
from mmsapa.engine.config import ConfigError
from mmsapa.registry import DATASETS


class PhotographDataset(BaseSegDataset):
    """Images and label maps of the same names, in two folders.

    Images are JPEG or PNG files, label maps PNG files.
    ``tools/dataset_converters/segmentation.py`` writes ``images/train``,
    ``annotations/train`` and so on from what is downloaded.

    Args:
        data_prefix (dict, optional): Folders of images and label maps under
            ``data_root``, ``img_path`` and ``seg_map_path``. Default: those
            of the training.
        **kwargs: As in MMSegmentation's BaseSegDataset.

    Raises:
        ConfigError: If a folder has no images, or an image no label map.
    """

    def __init__(self, data_prefix: dict | None = None, **kwargs):
        if data_prefix is None:
            data_prefix = dict(
                img_path='images/train', seg_map_path='annotations/train'
            )
        super().__init__(data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Find the pairs of a list of names, or of the folders.

        Returns:
            list[dict]: Items before the pipeline.

        Raises:
            ConfigError: As in the class.
        """
        images = self.data_prefix['img_path']
        folder = self.data_prefix.get('seg_map_path')
        names = self._names(images, KEPT)
        if self.ann_file:
            there = {osp.splitext(name)[0]: name for name in names}
            infos = super().load_data_list()
            for info in infos:
                # The parent gives each the suffix img_suffix.
                stem = osp.splitext(osp.relpath(info['img_path'], images))[0]
                if stem in there:
                    info['img_path'] = osp.join(images, there[stem])
            return infos
        if not names:
            raise ConfigError(
                f'{images}: expected images ({" ".join(KEPT)}), got none; '
                'name their folder in data_prefix, or convert the data set by '
                'tools/dataset_converters/segmentation.py.'
            )
        stems = [osp.splitext(name)[0] for name in names]
        if folder is not None:
            there = {*self._names(folder, self.seg_map_suffix)}
            missing = [
                name
                for name, stem in zip(names, stems)
                if stem + self.seg_map_suffix not in there
            ]
            if missing:
                raise ConfigError(
                    f'{osp.join(images, missing[0])}: expected a label map of '
                    f'the same name in {folder} (*{self.seg_map_suffix}), got '
                    f'none, as {len(missing)} of {len(names)} are missing; '
                    'put them there, or take their images out.'
                )
        infos = []
        for name, stem in zip(names, stems):
            info = dict(
                img_path=osp.join(images, name),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if folder is not None:
                path = osp.join(folder, stem + self.seg_map_suffix)
                info['seg_map_path'] = path
            infos.append(info)
        return infos

    def _names(self, folder, suffix):
        names = fileio.list_dir_or_file(
            folder,
            list_dir=False,
            recursive=True,
            backend_args=self.backend_args,
        )
        return sorted(x for x in names if x.lower().endswith(suffix))


@DATASETS.register_module()
class SUNRGBDSegDataset(PhotographDataset):
    """SUN RGB-D, 5,285 images to train with and 5,050 to test, 37 classes.

    In label maps 0 is a pixel without a label, which is ignored.
    ``tools/dataset_converters/segmentation.py`` converts it.

    Args:
        reduce_zero_label (bool): Whether label 0 is none and 1 the first
            class. Default: True.
        **kwargs: As in :class:`PhotographDataset`.

    Raises:
        ConfigError: As in :class:`PhotographDataset`.
    """

    METAINFO = dict(
        classes=(
            *('wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table'),
            *('door', 'window', 'bookshelf', 'picture', 'counter', 'blinds'),
            *('desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror'),
            *('floor mat', 'clothes', 'ceiling', 'books', 'fridge', 'tv'),
            *('paper', 'towel', 'shower curtain', 'box', 'whiteboard'),
            *('person', 'night stand', 'toilet', 'sink', 'lamp', 'bathtub'),
            'bag',
        )
    )

    def __init__(self, reduce_zero_label: bool = True, **kwargs):
        super().__init__(reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class CamVidDataset(PhotographDataset):
    """CamVid as SegNet's authors have it: 11 classes, 360x480 pixels.

    367 frames of a drive to train with, 101 to validate with and 233 to
    test. Label 255 is void. ``tools/dataset_converters/segmentation.py``
    converts it.
    """

    METAINFO = dict(
        classes=(
            *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
            *('sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    @staticmethod
    def group_of(img_path: str) -> str:
        """Name the part of a drive that a frame is of.

        Frames of the test are a second apart, so they are not independent of
        one another; parts of ten seconds are taken to be.

        Args:
            img_path (str): Image, such as ``0001TP_008550.png``.

        Returns:
            str: Drive and number of the part, such as ``0001TP 28``.
        """
        stem = osp.splitext(osp.basename(img_path))[0]
        drive, _, frame = stem.rpartition('_')
        number = frame.lstrip('f')
        return f'{drive} {int(number) // 300}' if number.isdigit() else stem


@DATASETS.register_module()
class WeizmannHorseDataset(PhotographDataset):
    """Weizmann's horses: an animal and the ground, about 250x200 pixels.

    ``tools/dataset_converters/segmentation.py`` converts it.
    """

    METAINFO = dict(
        classes=('ground', 'horse'), palette=[[64, 64, 64], [230, 159, 0]]
    )
