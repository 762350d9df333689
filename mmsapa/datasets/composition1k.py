"""Adobe's Composition-1K in the layouts of Adobe, A2U matting and MMagic."""

import glob
import os
import os.path as osp
import re

import mmengine
import numpy as np
from mmengine.dataset import BaseDataset
from torch.utils.data import get_worker_info

from mmsapa.engine.config import ConfigError
from mmsapa.registry import DATASETS

# Where foregrounds and composites lie if a config does not say it.
TRAINING = dict(
    fg_path='Training_set/*/fg',
    alpha_path='Training_set/*/alpha',
    bg_path='train2014',
)
TEST = dict(
    img_path='Test_set/merged',
    alpha_path='Test_set/alpha',
    trimap_path='Test_set/trimaps',
)
_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class Composition1kDataset(BaseDataset):
    """Foregrounds and backgrounds to train with, or composites to test.

    What belongs together has the same name, whatever the suffix. Three
    layouts are read.

    **Adobe's folders**, where ``*`` stands for both of their names, with
    COCO's ``train2014`` beside them, and with the test set that
    ``tools/dataset_converters/composition1k.py`` composes. These are the
    defaults::

        train = dict(
            type='mmsapa.Composition1kDataset',
            data_root='data/composition-1k',
            data_prefix=dict(
                fg_path='Training_set/*/fg',
                alpha_path='Training_set/*/alpha',
                bg_path='train2014',
            ),
            pipeline=[...],
        )
        test = dict(
            type='mmsapa.Composition1kDataset',
            data_root='data/composition-1k',
            data_prefix=dict(
                img_path='Test_set/merged',
                alpha_path='Test_set/alpha',
                trimap_path='Test_set/trimaps',
            ),
            test_mode=True,
            pipeline=[...],
        )

    **A2U matting's lists**: in place of a folder, a list of files under
    ``data_root``, one a line, such as ``fg_path='train_fg.txt'``. And for the
    test ``ann_file='test.txt'``, whose lines are composite, alpha and trimap
    with tabs between them.

    **MMagic's json files**, ``ann_file='training_list.json'``: a list, or a
    dict with ``data_list``, of dicts with ``fg_path``, ``alpha_path`` and
    ``bg_path``, or ``merged_path``, ``alpha_path`` and ``trimap_path``.

    In training, sample n is foreground n modulo their number. Its background
    is drawn at random, and so is the foreground ``other``, for
    :class:`~mmsapa.datasets.foreground_transforms.CompositeForeground`. An
    epoch has as many samples as there are backgrounds, and at least as many
    as foregrounds.

    In a test, the composite ``x_7`` goes with the alpha and the trimap
    ``x_7``, or if there is none ``x``. An item has ``img_path``,
    ``alpha_path`` and ``trimap_path``.

    NumPy's generator differs from one worker of a data loader to the next,
    and from epoch to epoch: mmengine would seed the workers of each epoch
    alike.

    Args:
        ann_file (str): List or json file, as above. Default: ``''``, which
            is none.
        data_prefix (dict, optional): Folders or lists, as above. Default:
            Adobe's folders, for a test if ``test_mode`` is set.
        test_mode (bool): Whether samples are composites. Default: False.
        **kwargs: As in mmengine's BaseDataset.

    Raises:
        ConfigError: If a list cannot be read, a folder has no images, a file
            is missing, or two have the same name.
    """

    METAINFO = dict(dataset_type='composition1k', task_name='matting')

    def __init__(
        self, ann_file='', data_prefix=None, test_mode=False, **kwargs
    ):
        if data_prefix is None:
            data_prefix = {}
            if not ann_file:
                data_prefix = dict(TEST if test_mode else TRAINING)
        self._listed = {}  # of each folder, while it is loaded
        super().__init__(
            ann_file=ann_file,
            data_prefix=data_prefix,
            test_mode=test_mode,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Find what belongs together.

        Returns:
            list[dict]: Items before the pipeline.

        Raises:
            ConfigError: As in the class.
        """
        if self.ann_file.endswith('.json'):
            infos = self._find_all(self._read_json(), self.ann_file)
        elif self.ann_file:
            infos = self._find_all(self._read_table(), self.ann_file)
        elif 'img_path' in self.data_prefix:
            infos = self._pair_composites()
        else:
            infos = self._pair_foregrounds()
        self._listed.clear()
        return infos

    def prepare_data(self, idx):
        """Draw what is random in a training sample, and run the pipeline."""
        _seed_worker()
        info = self.get_data_info(idx)
        if not self.test_mode:
            other, behind = (
                self.get_data_info(np.random.randint(len(self)))
                for _ in range(2)
            )
            info['bg_path'] = behind['bg_path']
            info['other'] = {k: other[k] for k in ('fg_path', 'alpha_path')}
        return self.pipeline(info)

    @staticmethod
    def group_of(img_path):
        """Name what composites have in common that are not independent.

        Args:
            img_path (str): Composite.

        Returns:
            str: The name of its foreground, ``x`` of ``x_7.png``.
        """
        return re.sub(r'_\d+$', '', _stem(img_path))

    # ------------------------------------------------------------- folders

    def _pair_foregrounds(self):
        fgs, alphas, bgs = map(
            self._files, ('fg_path', 'alpha_path', 'bg_path')
        )
        alphas = _by_stem(alphas)
        pairs = self._pair(_by_stem(fgs).values(), dict(alpha_path=alphas))
        return [
            dict(
                fg_path=pairs[i % len(pairs)]['path'],
                alpha_path=pairs[i % len(pairs)]['alpha_path'],
                bg_path=bgs[i % len(bgs)],
            )
            for i in range(max(len(pairs), len(bgs)))
        ]

    def _pair_composites(self):
        images = self._files('img_path')
        maps = {
            key: _by_stem(self._files(key))
            for key in ('alpha_path', 'trimap_path')
        }
        infos = self._pair(images, maps, numbered=True)
        return [dict(img_path=info.pop('path'), **info) for info in infos]

    def _files(self, key):
        """List the images of a folder, of several, or of a list."""
        if key not in self.data_prefix:
            raise ConfigError(
                f'data_prefix of Composition1kDataset: expected {key}, got '
                f'{", ".join(self.data_prefix)}; name a folder or a list.'
            )
        place = self.data_prefix[key]
        if place.endswith('.txt'):
            files = [dict(path=self._under_root(x)) for x in _lines(place)]
            files = [x['path'] for x in self._find_all(files, place)]
        else:
            folders = sorted(glob.glob(place)) or [place]
            files = [
                osp.join(folder, name)
                for folder in folders
                for name in sorted({*self._names(folder).values()})
            ]
        if not files:
            raise ConfigError(
                f'{place}: expected images ({" ".join(_SUFFIXES)}), got none; '
                f'name their folder, or a list of them, in data_prefix.{key}.'
            )
        return files

    def _pair(self, paths, maps, numbered=False):
        infos, lacking = [], []
        for path in paths:
            info = dict(path=path)
            for key, table in maps.items():
                stem = _stem(path)
                info[key] = table.get(stem)
                if numbered and info[key] is None:
                    info[key] = table.get(self.group_of(path))
                if info[key] is None:
                    lacking.append((path, key))
            infos.append(info)
        if lacking:
            path, key = lacking[0]
            raise ConfigError(
                f'{path}: expected a file of the same name in '
                f'{self.data_prefix[key]}, got none, as {len(lacking)} of '
                f'{len(maps) * len(infos)} maps are missing; put them there, '
                'or take their images out.'
            )
        return infos

    # --------------------------------------------------------------- lists

    def _read_table(self):
        infos = []
        for number, line in enumerate(_lines(self.ann_file), 1):
            columns = line.split('\t')
            if len(columns) != 3:
                raise ConfigError(
                    f'{self.ann_file}, entry {number}: expected composite, '
                    'alpha and trimap, with tabs between them, got '
                    f'{line[:120]!r}; correct it.'
                )
            infos.append(dict(zip(TEST, map(self._under_root, columns))))
        if not infos:
            raise ConfigError(
                f'{self.ann_file}: expected lines with composite, alpha and '
                'trimap, got none.'
            )
        return infos

    def _read_json(self):
        try:
            items = mmengine.load(self.ann_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'{self.ann_file}: expected a json file, got what cannot be '
                f'read: {error}'
            ) from error
        if isinstance(items, dict):
            items = items.get('data_list')
        keys = tuple(TEST if self.test_mode else TRAINING)
        infos = []
        for item in items if isinstance(items, list) else ():
            names = dict(item) if isinstance(item, dict) else {}
            names['img_path'] = names.get('merged_path')
            if not all(isinstance(names.get(key), str) for key in keys):
                wanted = ', '.join(keys).replace('img_path', 'merged_path')
                raise ConfigError(
                    f'{self.ann_file}, entry {len(infos) + 1}: expected '
                    f'{wanted}, got {str(item)[:120]}; name the list of the '
                    'other split, or set test_mode for a test.'
                )
            infos.append({key: self._under_root(names[key]) for key in keys})
        if not infos:
            raise ConfigError(
                f'{self.ann_file}: expected a list of samples, or a dict with '
                'data_list, got none.'
            )
        return infos

    def _under_root(self, path):
        return osp.join(self.data_root or '', path.strip())

    # --------------------------------------------------------------- files

    def _names(self, folder):
        """List the images of a folder by their names, without suffix too."""
        if folder not in self._listed:
            names = os.listdir(folder) if osp.isdir(folder) else []
            names = [
                name
                for name in sorted(names)
                if name.lower().endswith(_SUFFIXES) and name[0] != '.'
            ]
            self._listed[folder] = {_stem(name): name for name in names}
            self._listed[folder].update(zip(names, names))
        return self._listed[folder]

    def _find(self, path):
        """Return the file of a listed name, may its suffix be another."""
        folder, name = osp.split(path)
        names = self._names(folder)
        name = names.get(name) or names.get(_stem(name))
        return osp.join(folder, name) if name else None

    def _find_all(self, infos, place):
        """Put the true suffixes into items; all files must exist."""
        missing = []
        for number, info in enumerate(infos, 1):
            for key, path in info.items():
                info[key] = self._find(path)
                if info[key] is None:
                    missing.append((number, path))
        if missing:
            number, path = missing[0]
            raise ConfigError(
                f'{place}, entry {number}: expected {path}, which does not '
                f'exist, as {len(missing)} of {sum(map(len, infos))} files do '
                'not; put them there, or name their folder in data_root.'
            )
        return infos


def _stem(path):
    return osp.splitext(osp.basename(path))[0]


def _by_stem(paths):
    found = {}
    for path in paths:
        other = found.setdefault(_stem(path), path)
        if other is not path:
            raise ConfigError(
                f'{path}: expected one file of that name, got {other}, too; '
                'rename one, or take it out.'
            )
    return found


def _lines(path):
    """Read the lines of a list that are not empty."""
    try:
        with open(path, encoding='utf-8-sig', errors='replace') as file:
            return [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise ConfigError(
            f'{path}: expected a list of files, got what cannot be read: '
            f'{error}'
        ) from error


_seeded = None


def _seed_worker():
    """Give NumPy a new state, once in each process of a data loader.

    mmengine's seed tells processes apart, but not epochs, and PyTorch's the
    other way round where several processes train.
    """
    global _seeded
    info = get_worker_info()
    if info is not None and info.seed != _seeded:
        _seeded = info.seed
        np.random.seed([np.random.randint(1 << 31), info.seed % (1 << 32)])
