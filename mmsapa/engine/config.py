"""Reading configs: text and pure Python ones alike."""

import difflib
import os.path as osp
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS

from mmsapa.errors import UserError

OURS = 'mmsapa::'
LIBRARIES = ('mmseg', 'mmdet', 'mmsapa')  # the last one for mattors


class ConfigError(UserError):
    """A config, an option or the data do not fit; says what to do."""


def find_config(config):
    """Find a config file by its path or, if it is ours, by its name.

    Args:
        config (str | Path): Path, or ``mmsapa::`` and the name of a config
            that is installed with the package, such as
            ``mmsapa::segformer/NAME.py``.

    Returns:
        str: Path of the file.

    Raises:
        ConfigError: There is none.
    """
    config = str(config)
    if not config.startswith(OURS):
        if not osp.isfile(config):
            raise ConfigError(f'There is no config file {config}.')
        return config
    folder = Path(__file__).parents[1] / '.mim/configs'
    files = {
        f'{OURS}{x.parent.name}/{x.name}': x for x in folder.glob('*/*.py')
    }
    name = config if config.endswith('.py') else f'{config}.py'
    if name not in files:
        close = difflib.get_close_matches(name, files, cutoff=0)
        raise ConfigError(
            f'There is no config {config}; those like it are '
            f'{", ".join(close)}.'
        )
    return str(files[name])


def read_config(config):
    """Read a config file as mmengine does, with any MMSegmentation.

    Args:
        config (str | Path): File, or a name as in :func:`find_config`.

    Returns:
        Config: Its content.

    Raises:
        ConfigError: There is no such file.
    """
    path = find_config(config)
    # mmengine looks for bases such as 'mmseg::…' in a distribution named
    # mmsegmentation, which forks are not; the module's name finds both.
    official = MODULE2PACKAGE['mmseg']
    if find_spec('mmseg') and not _is_installed(official):
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    try:
        return Config.fromfile(path)
    finally:
        MODULE2PACKAGE['mmseg'] = official


def _is_installed(distribution):
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def type_name(cfg):
    """Return the name of the class that a part of a config builds.

    Args:
        cfg (dict): Config with a ``type``: a name, with or without its scope
            or module, or a class, as in pure Python configs.

    Returns:
        str: The bare name, such as 'SyncBN'; '' where there is no type.
    """
    kind = cfg.get('type') or ''
    return getattr(kind, '__name__', str(kind).rpartition('.')[2])


def library_of(cfg):
    """Return the library that a config is for.

    Pure Python configs may leave out ``default_scope``, since their types are
    classes already; there the model's class decides.

    Args:
        cfg (Config): Config of a segmentor, detector or mattor.

    Returns:
        str: 'mmseg', 'mmdet' or, of a mattor, 'mmsapa'.

    Raises:
        ConfigError: It is for none of them.
    """
    scope = cfg.get('default_scope')
    kind = (cfg.get('model') or {}).get('type')
    # A user's own class is in none, but derives from one of theirs.
    homes = [base.__module__ for base in getattr(kind, '__mro__', ())]
    for name in (scope, kind, *homes):
        library = str(name).partition('.')[0]
        if library in LIBRARIES:
            return library
    raise ConfigError(
        "The config's default_scope must be 'mmseg', 'mmdet' or, of a mattor, "
        f"'mmsapa', got {scope!r}, and the model's type does not tell either: "
        f'{kind!r}.'
    )


def kind_of(cfg):
    """Return what the model of a config is.

    Args:
        cfg (Config): Config of one of the libraries.

    Returns:
        str: 'detector', 'mattor', 'depth estimator' or 'segmentor'.
    """
    library = library_of(cfg)
    if library == 'mmdet':
        return 'detector'
    if library == 'mmsapa':
        return 'mattor'
    kind = (cfg.get('model') or {}).get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(library) as registry:
            kind = registry.get(kind)
    bases = [base.__name__ for base in getattr(kind, '__mro__', ())]
    return 'depth estimator' if 'DepthEstimator' in bases else 'segmentor'


def leaf_datasets(dataset):
    """List the innermost configs of a data set.

    Args:
        dataset (dict | None): Config of a data set, or of a wrapper such as
            ConcatDataset or RepeatDataset, nested in any way.

    Returns:
        list[dict]: Configs without wrappers, in order; the dicts of
        ``dataset`` themselves, not copies.
    """
    if not isinstance(dataset, dict):
        return []
    inner = [*(dataset.get('datasets') or ())]
    if 'dataset' in dataset:
        inner.append(dataset['dataset'])
    if not inner:
        return [dataset]
    return [leaf for part in inner for leaf in leaf_datasets(part)]


def find_slots(node):
    """List the parts of a model's config that hold a slot.

    Returns:
        list[dict]: Those whose ``upsample_cfg`` is None or names a ``type``;
        the dicts themselves, not copies.
    """
    if isinstance(node, (list, tuple)):
        return [slot for part in node for slot in find_slots(part)]
    if not isinstance(node, dict):
        return []
    found = find_slots([*node.values()])
    if 'upsample_cfg' in node:
        upsample_cfg = node['upsample_cfg']
        if upsample_cfg is None or 'type' in upsample_cfg:
            found.append(node)
    return found
