"""Checks of data and model before the first iteration.

Otherwise a mistake in a data set is found after hours, by an error from deep
inside, or not at all. A few samples show most mistakes in a moment.
"""

import glob
import os.path as osp
import time

import numpy as np
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import DATASETS

from mmsapa.datasets.categories import (
    check_names,
    enumerated,
    read_categories,
)
from mmsapa.datasets.depth_checks import check_depth_maps
from mmsapa.datasets.matting_checks import check_mattes
from mmsapa.datasets.size_checks import check_sizes
from mmsapa.engine.config import ConfigError, leaf_datasets, type_name

SAMPLES = 12
# Label maps that look empty are followed by more, at most so many and for so
# many seconds.
MORE_SAMPLES, MORE_SECONDS = 200, 1.0


def missing_paths(dataset):
    """Find files and folders of a data set that do not exist.

    Args:
        dataset (dict): Config of a data set without wrappers.

    Yields:
        str: Path. Where the data set has a file backend, the backend is
        asked; if it cannot answer, the path counts as existing.

    Raises:
        ConfigError: A path is not text.
    """
    parts = dict(dataset.get('data_prefix') or {})
    if not any('Ann' in type_name(t) for t in dataset.get('pipeline') or ()):
        # A pipeline that loads no annotations needs no maps of them.
        maps = 'seg', 'depth'
        parts = {k: v for k, v in parts.items() if not k.startswith(maps)}
    parts['ann_file'] = dataset.get('ann_file')
    root = dataset.get('data_root') or ''
    for name, part in dict(data_root=root, **parts).items():
        if isinstance(part, (int, float)):
            raise ConfigError(
                f'{name} must be text, got the number {part!r}: a folder of '
                f'that name is written ./{part}.'
            )
    backend = dataset.get('backend_args')
    for part in parts.values():
        if not isinstance(part, str):
            continue
        path = part if '://' in part else osp.join(root, part)
        if path and not _exists(path, backend):
            yield path


def _exists(path, backend):
    if backend is None:
        # Several folders of one pattern, as Composition-1K has them.
        return '://' in path or bool(osp.exists(path) or glob.glob(path))
    try:
        return fileio.exists(path, backend_args=backend)
    except Exception:
        # Some backends cannot tell, and clients have errors of all kinds.
        return True


def check_loop(split, model, dataset, metrics=()):
    """Check that the data of a loop, its metrics and the model fit.

    Args:
        split (str): 'train', 'val' or 'test'.
        model (nn.Module): Segmentor or detector, may be wrapped.
        dataset (Dataset): Of the loop's loader, may be wrapped.
        metrics (list[BaseMetric]): Of the loop's evaluator.

    Raises:
        ConfigError: They do not fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    for leaf in _leaves(dataset):
        if not isinstance(leaf, BaseDataset) or not len(leaf):
            continue
        classes = leaf.metainfo.get('classes') or ()
        infos = [leaf.get_data_info(i) for i in _spread(len(leaf), SAMPLES)]
        _check_categories_of(leaf, classes)
        load = _loader_of_label_maps(leaf)
        head = _last(getattr(model, 'decode_head', None))
        if load is not None and hasattr(head, 'num_classes'):
            _check_count(split, 'decode_head', head, classes)
            check_sizes(infos)
            _check_label_maps(split, head, leaf, infos, load)
        check_depth_maps(split, head, leaf, infos)
        check_mattes(split, leaf, infos)
        # Of panoptic data only the first classes have boxes.
        things = leaf.metainfo.get('thing_classes') or classes
        for name, head in _detecting_heads(model).items():
            known = classes if name == 'panoptic_head' else things
            _check_count(split, name, head, known, exactly=bool(metrics))
            _check_labels(name, head, infos)
        for metric in metrics:
            kinds = {base.__name__ for base in type(metric).__mro__}
            api = getattr(metric, '_coco_api', None)
            if 'CocoMetric' in kinds and api is not None:
                _check_evaluator(api, infos, classes)


def check_file_names(dataset):
    """Check that predictions of all images can lie in one folder.

    Args:
        dataset (BaseDataset): Of test images.

    Raises:
        ConfigError: If two images have one name.
    """
    images = {}
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path')
        name = osp.splitext(osp.basename(path or str(index)))[0]
        other = images.setdefault(name, path)
        if other != path:
            raise ConfigError(
                f'{path}: expected an image of another name than {other}, as '
                "each one's prediction goes into one folder by its name; test "
                'them one after the other, or rename one.'
            )


def _leaves(dataset):
    inner = [*getattr(dataset, 'datasets', ())]
    if hasattr(dataset, 'dataset'):
        inner.append(dataset.dataset)
    if not inner:
        return [dataset]
    return [leaf for part in inner for leaf in _leaves(part)]


def _spread(length, count):
    """Return the first three indices, and others from the whole range."""
    others = np.linspace(0, length - 1, count).astype(int).tolist()
    return sorted({*range(min(3, length)), *others})


def explain_failure(dataset):
    """Raise the reason why a data set could not be built, if it is known.

    Args:
        dataset (dict): Its config, may be of a wrapper.

    Raises:
        ConfigError: Its categories are not its classes, it has no images, or
            its own check says what is wrong.
    """
    for cfg in leaf_datasets(dataset):
        without = dict(lazy_init=True, pipeline=[])
        try:
            leaf = DATASETS.build({**cfg, **without})
            classes = leaf.metainfo.get('classes') or ()
        except Exception:
            continue  # the failure itself says more
        names = read_categories(leaf.ann_file, cfg.get('backend_args'))
        if names:
            check_names(names.values(), classes, leaf.ann_file)
        try:
            leaf.data_list = leaf.load_data_list()
            kept = leaf.filter_data()
        except ConfigError:
            raise  # without what mmengine puts before it
        except Exception:
            continue
        if not kept:
            where = leaf.ann_file or (leaf.data_prefix or {}).get('img_path')
            raise ConfigError(
                f'{where}: expected images '
                f'({getattr(leaf, "img_suffix", "in a json file")}), got '
                f'{len(leaf.data_list)}, of which filter_cfg='
                f'{leaf.filter_cfg} leaves none.'
            )


# ------------------------------------------------------------------ classes


def _check_categories_of(dataset, classes):
    """Check that labels mean the classes of that name.

    MMDetection numbers labels in the order of the json file, whatever the
    order of the classes is.
    """
    backend = getattr(dataset, 'backend_args', None)
    names = read_categories(dataset.ann_file, backend)
    if not names or not hasattr(dataset, 'cat_ids'):
        return
    # Some data sets use the numbers, or sort by themselves.
    if list(dataset.cat_ids) == [i for i in names if names[i] in classes]:
        check_names(names.values(), classes, dataset.ann_file)


def _last(head):
    """Return the last head of a cascade, which predicts."""
    return head[-1] if hasattr(head, '__getitem__') else head


def _detecting_heads(model):
    """Return the heads that classify a detector's objects, by name."""
    found = {}
    if hasattr(model, 'language_model') or type(model).__name__ == 'RPN':
        return found  # classes are words, or all are one
    for path in (
        *('bbox_head', 'mask_head', 'panoptic_head'),
        *('roi_head.bbox_head', 'roi_head.mask_head'),
    ):
        head = model
        for name in path.split('.'):
            head = getattr(head, name, None)
        head = _last(head)
        if not getattr(head, 'class_agnostic', False):
            if isinstance(getattr(head, 'num_classes', None), int):
                found[path] = head
    return found


def _limit(head):
    """Return the number of labels that a head can be trained with."""
    # One channel and a sigmoid separate two classes.
    if getattr(head, 'out_channels', None) == 1:
        return max(2, head.num_classes)
    return head.num_classes


def _check_count(split, name, head, classes, exactly=False):
    limit = _limit(head)
    # Metrics of boxes have no name for a class of the head alone.
    exactly = exactly and name != 'panoptic_head'
    if len(classes) > limit or (exactly and 0 < len(classes) < limit):
        raise ConfigError(
            f"The model's {name} has num_classes={head.num_classes}, but the "
            f'data of {split}_dataloader has {len(classes)} classes '
            f'{enumerated(classes)}; set both to the same.'
        )


def _check_evaluator(api, infos, classes):
    """Check that an evaluator's json file is that of the data."""
    names = [cat['name'] for cat in api.cats.values()]
    check_names(names, classes, "The evaluator's ann_file")
    advice = 'name the ann_file of the test data in the evaluator.'
    boxes, found = 0, 0
    for info in infos:
        if 'img_id' not in info:
            return
        image = api.imgs.get(info['img_id'])
        name = osp.basename(str(info.get('img_path')))
        if image is None or (
            'file_name' in image and osp.basename(image['file_name']) != name
        ):
            raise ConfigError(
                f"The evaluator's ann_file does not know {info['img_path']} "
                f'as image {info["img_id"]}; {advice}'
            )
        theirs = [
            ann['bbox']
            for ann in api.imgToAnns[info['img_id']]
            if isinstance(ann, dict) and 'bbox' in ann
        ]
        for instance in info.get('instances') or ():
            if 'bbox' not in instance:
                continue
            x1, y1, x2, y2 = instance['bbox']
            ours = x1, y1, x2 - x1, y2 - y1
            boxes += 1
            found += any(np.allclose(ours, box, atol=0.5) for box in theirs)
    if boxes and not found:
        raise ConfigError(
            f"The evaluator's ann_file has none of the {boxes} boxes that "
            f'the data has in {infos[0]["img_path"]} and {len(infos) - 1} '
            f'more images; {advice}'
        )


def _check_labels(name, head, infos):
    for info in infos:
        for instance in info.get('instances') or ():
            label = instance.get('bbox_label')
            if isinstance(label, int) and label >= head.num_classes:
                raise ConfigError(
                    f'{info.get("img_path")} has a box with label {label}, '
                    f"but the model's {name} has num_classes="
                    f'{head.num_classes}.'
                )


# --------------------------------------------------------------- label maps


def _loader_of_label_maps(dataset):
    # By name, since detection does not need MMSegmentation.
    for transform in getattr(dataset.pipeline, 'transforms', ()):
        for base in type(transform).__mro__:
            library = base.__module__.partition('.')[0]
            if (library, base.__name__) == ('mmseg', 'LoadAnnotations'):
                return transform
    return None


def _check_label_maps(split, head, dataset, infos, load):
    limit = _limit(head)
    ignored = {getattr(x, 'ignore_index', 255) for x in (dataset, head)}
    reduced = getattr(dataset, 'reduce_zero_label', False)
    note = ' (after reduce_zero_label)' if reduced else ''
    note += f'; {max(ignored)} is ignored'
    seen = set()

    def look(info):
        labels = _label_map(info, load)
        found, counts = np.unique(labels, return_counts=True)
        seen.update(found.tolist())
        for label, count in zip(found.tolist(), counts.tolist()):
            if label >= limit and label not in ignored:
                raise ConfigError(
                    f'{info["seg_map_path"]} has label {label} in {count} '
                    f'pixels, but the model tells {limit} classes apart: '
                    f'labels are 0 to {limit - 1}{note}.'
                )

    def suspicious():
        # A few images of a validation may well hold one class.
        enough = split == 'train' or len(dataset) >= SAMPLES
        return (
            enough and limit > 1 and seen & ignored and seen <= {0, *ignored}
        )

    infos = [info for info in infos if info.get('seg_map_path')]
    if not infos:
        return
    try:
        for info in infos:
            look(info)
        if suspicious():
            # Rare classes may be in others.
            end = time.monotonic() + MORE_SECONDS
            for i in _spread(len(dataset), MORE_SAMPLES):
                if time.monotonic() > end:
                    break
                look(dataset.get_data_info(i))
    except (AttributeError, KeyError, TypeError):
        return  # a user's loader, which needs more than the path
    if suspicious():
        raise ConfigError(
            f'{infos[0]["seg_map_path"]} and the other label maps looked at '
            f'in {split}_dataloader hold nothing but '
            f'{" and ".join(map(str, sorted(seen)))}, but labels are 0 to '
            f'{limit - 1}{note}: write the number of its class into every '
            'pixel.'
        )


def _label_map(info, load):
    path = info['seg_map_path']
    try:
        labels = load(info)['gt_seg_map']
    except (AssertionError, OSError) as error:
        raise ConfigError(
            f'{path}: expected a label map, got what cannot be read: {error}'
        ) from error
    if labels.ndim != 2:
        raise ConfigError(
            f'{path}: expected a label map of one channel, whose pixels are '
            f'class numbers, got an image of {labels.shape[-1]} channels.'
        )
    return labels
