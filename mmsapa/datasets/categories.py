"""Categories of a json file, and whether they are a data set's classes."""

import json
import mmap
import os.path as osp

from mmsapa.engine.config import ConfigError

# Bytes that the categories of a json file take at most.
MOST_CATEGORIES = 1 << 22


def read_categories(path, backend_args=None):
    """Read only the categories of a json file of any size.

    Args:
        path (str): File in the format of COCO.
        backend_args (dict, optional): Of mmengine's file backend.

    Returns:
        dict[int, str]: Names by number, in order; {} if there are none
        or the file is not on a local disk.
    """
    local = backend_args is None or backend_args.get('backend') == 'local'
    if not (local and str(path).endswith('.json') and osp.isfile(path)):
        return {}
    if not osp.getsize(path):
        return {}
    decoder = json.JSONDecoder()
    with (
        open(path, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        # They stand first or last; annotations may have some of their own.
        for at in text.rfind(b'"categories"'), text.find(b'"categories"'):
            begin = max(text.find(b'[', at), 0)
            rest = text[begin : begin + MOST_CATEGORIES]
            try:
                found = decoder.raw_decode(rest.decode(errors='ignore'))[0]
                return {item['id']: item['name'] for item in found}
            except (ValueError, TypeError, KeyError):
                pass
    return {}


def check_names(names, classes, path):
    """Check that categories are a data set's classes, in the same order.

    Args:
        names (Iterable[str]): Names of the categories, in order; those that
            are no classes may lie between them.
        classes (Sequence[str]): Of the data set.
        path (str): Where the categories are from.

    Raises:
        ConfigError: They differ.
    """
    names = list(names)
    known = [name for name in names if name in classes]
    if known and known == list(classes[: len(known)]):
        return
    raise ConfigError(
        f'{path} has the categories {enumerated(names)}, in this order, but '
        f'the classes of the data set are {enumerated(classes)}, so that '
        'labels would be mixed up or left out; write those of the file into '
        'metainfo=dict(classes=(…)) of the data set.'
    )


def enumerated(names):
    """Return the first names as text, and their number if there are more."""
    names = list(map(str, names))
    more = f', … ({len(names)})' if len(names) > 8 else ''
    return f'({", ".join(names[:8])}{more})'
