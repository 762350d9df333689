"""NYU Depth v2 in the layouts of BTS and of MMSegmentation."""

import os.path as osp
import re

from mmengine import fileio
from mmseg.datasets import NYUDataset

from mmsapa.engine.config import ConfigError
from mmsapa.registry import DATASETS

# The confusion that users report most.
FOLDERS = (
    'of NYU Depth v2 the training list (24,231 pairs) goes with the folder '
    'sync, the test list (654 pairs) with official_splits/test, and '
    'data_prefix names the folder'
)


@DATASETS.register_module()
class NYUDepthDataset(NYUDataset):
    """Images with depth, listed in a file as BTS has them, or in folders.

    With ``ann_file``, pairs are those of a list of BTS, for NYU Depth v2 or
    KITTI: a line has the paths of image and depth map and the focal length
    in pixels, separated by blanks. A slash before a path is left out, and a
    line with the depth map ``None``, as KITTI's lists have some, is skipped::

        dict(
            type='mmsapa.NYUDepthDataset',
            data_root='data/nyu_depth_v2',
            ann_file='nyudepthv2_train_files_with_gt.txt',
            data_prefix=dict(img_path='sync'),
            pipeline=[...],
        )

    Without, pairs are the files of two folders, as MMSegmentation has them:
    ``images/train/x.jpg`` and ``annotations/train/x.png``.

    An item has ``img_path``, ``depth_map_path``, ``category_id`` (the kind
    of room, -1 if unknown) and, of a list, ``focal``; ``PackSegInputs``
    keeps what its ``meta_keys`` name.

    Args:
        ann_file (str): List, under ``data_root`` or absolute. Default: ``''``,
            which is none.
        data_prefix (dict, optional): Folders of images and depth maps under
            ``data_root``, ``img_path`` and ``depth_map_path``. Default: with
            a list ``data_root`` itself, else ``images`` and ``annotations``.
            With a list both are that of the images if it names no other.
        **kwargs: As in MMSegmentation's NYUDataset.

    Raises:
        ConfigError: If a line of the list cannot be read, the list or the
            folder is empty, or a file is missing.
    """

    def __init__(self, ann_file='', data_prefix=None, **kwargs):
        if data_prefix is None:
            data_prefix = dict(img_path='images', depth_map_path='annotations')
            if ann_file:
                data_prefix = dict(img_path='')
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the list, or the names in the folders.

        Returns:
            list[dict]: Items before the pipeline.

        Raises:
            ConfigError: As in the class.
        """
        if self.ann_file:
            lines, infos = self._read_list()
            self._check_files(infos, lines)
            return infos
        infos = super().load_data_list()
        if not infos:
            raise ConfigError(
                f'{self.data_prefix["img_path"]}: expected images '
                f'(*{self.img_suffix}), got none; name their folder in '
                "data_prefix, or BTS's list in ann_file."
            )
        self._check_files(infos)
        return infos

    def _read_list(self):
        images = self.data_prefix['img_path']
        depths = self.data_prefix.get('depth_map_path', images)
        content = fileio.get(self.ann_file, backend_args=self.backend_args)
        lines, infos = [], []
        # What is no text has no three columns either.
        for number, line in enumerate(
            content.decode(errors='replace').split('\n'), 1
        ):
            columns = line.split()
            if not columns:
                continue
            try:
                image, depth, focal = columns
                focal = float(focal)
            except ValueError:
                raise ConfigError(
                    f'{self.ann_file}, line {number}: expected image, depth '
                    'map and focal length, separated by blanks, got '
                    f'{line.strip()[:120]!r}; correct the line.'
                ) from None
            if depth == 'None':
                continue
            scene = osp.basename(osp.dirname(image))
            lines.append(number)
            infos.append(
                dict(
                    img_path=osp.join(images, image.lstrip('/')),
                    depth_map_path=osp.join(depths, depth.lstrip('/')),
                    seg_fields=[],
                    category_id=self._get_category_id_from_filename(scene),
                    focal=focal,
                )
            )
        if not infos:
            raise ConfigError(
                f'{self.ann_file}: expected lines with image, depth map and '
                f'focal length, got none with a depth map; {FOLDERS}.'
            )
        return lines, infos

    def _check_files(self, infos, lines=None):
        """Check that all files exist, on a local disk."""
        if (self.backend_args or {}).get('backend', 'local') != 'local':
            return
        missing = [
            (number, path)
            for number, info in enumerate(infos)
            for path in (info['img_path'], info.get('depth_map_path'))
            if path is not None and not osp.isfile(path)
        ]
        if not missing:
            return
        number, path = missing[0]
        where = infos[number]['img_path']
        if lines:
            where = f'{self.ann_file}, line {lines[number]}'
        if lines and len({number for number, _ in missing}) == len(infos):
            raise ConfigError(
                f'{where}: expected {path}, which does not exist, and none '
                f'of the {len(infos)} pairs is complete; {FOLDERS}.'
            )
        raise ConfigError(
            f'{where}: expected {path}, which does not exist, as '
            f'{len(missing)} of {2 * len(infos)} files do not; put them '
            'there, or take their pairs out.'
        )

    def _get_category_id_from_filename(self, image_fname: str) -> int:
        """Find the kind of room in a name such as kitchen_0028b_00045."""
        # Not every name has a digit, which the parent's needs.
        room = re.split(r'_?\d|\.', osp.basename(image_fname))[0]
        classes = self._metainfo['classes']
        return classes.index(room) if room in classes else -1
