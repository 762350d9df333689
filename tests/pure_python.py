"""Configs in pure Python, whose types are classes and need no scope."""

from mmengine import registry

REGISTRIES = [
    getattr(registry, name)
    for name in (
        *('MODELS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'DATA_SAMPLERS'),
        *('LOOPS', 'HOOKS', 'OPTIM_WRAPPERS', 'OPTIMIZERS'),
        *('PARAM_SCHEDULERS', 'VISUALIZERS', 'VISBACKENDS', 'TASK_UTILS'),
    )
]


class _Name(str):
    """Is written without quotation marks."""

    def __repr__(self):
        return str(self)


def write_pure_python(cfg, library, path):
    """Write a text config again with classes for names, and no scope.

    Args:
        cfg (Config): With names that ``library`` has registered; others,
            such as those of operators, stay names.
        library (str): 'mmseg' or 'mmdet'.
        path (Path): Where it goes.
    """
    imports = {}

    def convert(node):
        if isinstance(node, (list, tuple)):
            return type(node)(map(convert, node))
        if not isinstance(node, dict):
            return node
        node = {k: convert(v) for k, v in node.items() if k != '_scope_'}
        if type(node.get('type')) is str:
            found = find(node['type'], library)
            if found:
                name = imports.setdefault(found, f'Type{len(imports)}')
                node['type'] = _Name(name)
        return node

    settings = {**convert(cfg.to_dict()), 'default_scope': None}
    lines = [f'{key} = {value!r}' for key, value in settings.items()]
    heads = [
        f'from {kind.__module__} import {kind.__name__} as {name}'
        for kind, name in imports.items()
    ]
    path.write_text('\n'.join(heads + lines))


def find(name, library):
    """Find a class by its registered name."""
    for each in REGISTRIES:
        with each.switch_scope_and_registry(library) as here:
            try:
                found = here.get(name)
            except (ImportError, RuntimeError):
                continue
        if isinstance(found, type):
            return found
