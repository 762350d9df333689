"""The documentation's Python runs, and its commands name what there is."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').glob('*/README.md')),
]


def blocks(language):
    """Find the code blocks of all pages, each of them once."""
    fence = re.compile(rf'^```{language}\n(.*?)^```', re.M | re.S)
    found = {}
    for page in PAGES:
        text = page.read_text()
        for block in fence.finditer(text):
            line = text.count('\n', 0, block.start()) + 1
            found.setdefault(block[1], f'{page.relative_to(ROOT)}:{line}')
    return [pytest.param(code, id=name) for code, name in found.items()]


def skip_without_libraries(code):
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            library = name.partition('.')[0]
            if find_spec(library) is None:
                pytest.skip(f'{library} is not installed')


@pytest.mark.parametrize('code', blocks('python'))
def test_python_runs(code, tmp_path):
    skip_without_libraries(code)
    if '_base_' not in code:
        exec(compile(code, 'docs', 'exec'), {'__name__': 'docs'})
        return
    (library,) = re.findall(r"_base_ = '(\w+)::", code)
    pytest.importorskip(library, reason=f'{library} is not installed')
    from mmengine.registry import MODELS, DefaultScope, init_default_scope

    from mmsapa.engine.config import read_config
    from mmsapa.upsamplers import UpsampleSlot

    (tmp_path / 'config.py').write_text(code)
    cfg = read_config(tmp_path / 'config.py')
    with DefaultScope.overwrite_default_scope(library):
        init_default_scope(library)
        model = MODELS.build(cfg.model)
    assert any(isinstance(m, UpsampleSlot) for m in model.modules())


@pytest.mark.parametrize('code', blocks('bash'))
def test_commands_name_what_there_is(code):
    for path in re.findall(r'\b(?:tools|configs)/[\w./-]+', code):
        assert (ROOT / path).is_file(), path
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^(?:\w+=\S+ )*make ([\w-]+)', code, re.M):
        assert re.search(rf'^{target}:', makefile, re.M), target
