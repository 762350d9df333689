"""What stands beside the code agrees with it."""

import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture
def extras(monkeypatch):
    found = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **kw: found.update(kw))
    monkeypatch.setenv('FORCE_CUDA', '0')
    monkeypatch.chdir(ROOT)
    runpy.run_path('setup.py')
    return {
        extra: {Requirement(line).name for line in lines}
        for extra, lines in found['extras_require'].items()
    }


def test_no_extra_mixes_a_fork_with_the_official_libraries(extras):
    """They have the same import names, and pip overwrites one by the other."""
    forks = dict(
        mmcv='onedl-mmcv',
        mmengine='onedl-mmengine',
        mmdet='onedl-mmdetection',
        mmsegmentation='onedl-mmsegmentation',
    )
    for library, extra in (('mmsegmentation', 'seg'), ('mmdet', 'det')):
        needed = {'mmcv', 'mmengine', library}
        assert {*extras[extra]} & {*forks} == needed
        assert not {*extras[extra]} & {*forks.values()}
        assert extras[f'{extra}-onedl'] == {forks[x] for x in needed}


def test_pre_commit_runs_the_versions_that_make_lint_does():
    text = (ROOT / '.pre-commit-config.yaml').read_text()
    hooks = [
        x for repo in yaml.safe_load(text)['repos'] for x in repo['hooks']
    ]
    pins = {pin for hook in hooks for pin in hook['additional_dependencies']}
    assert len(pins) == 2
    for pin in pins:
        name, version = pin.split('==')
        assert metadata.version(name) == version


def test_both_citations_are_of_the_same_paper():
    bibtex = (ROOT / 'README.md').read_text().partition('```bibtex')[2]
    cff = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    paper = cff['preferred-citation']

    def field(name):
        value = re.search(rf'{name}=\{{(.+)\}}', bibtex).group(1)
        return re.sub('[{}]', '', value)

    assert field('title') == paper['title']
    assert field('author').split(' and ') == [
        f'{x["family-names"]}, {x["given-names"]}' for x in paper['authors']
    ]
    assert field('booktitle') == paper['collection-title']
    assert field('year') == str(paper['year'])


def test_bug_reports_ask_for_what_the_info_module_prints():
    templates = {
        path.stem: path.read_text()
        for path in (ROOT / '.github/ISSUE_TEMPLATE').glob('*.md')
    }
    for text in templates.values():
        front = yaml.safe_load(text.split('---')[1])
        assert {*front} == {'name', 'about'}  # without both GitHub hides it
    assert 'python -m mmsapa.info' in templates['bug_report']


def test_the_package_has_all_configs(tmp_path):
    """As ``pip install .`` copies it, without the operators."""
    build = 'setup.py', '-q', 'build_py', '--build-lib', tmp_path
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True)
    for name in ('configs', 'model-index.yml'):
        built = tmp_path / 'mmsapa/.mim' / name
        files = [*(ROOT / name).rglob('*.*')] or [ROOT / name]
        assert files
        for file in files:
            copy = built / file.relative_to(ROOT / name)
            assert copy.read_bytes() == file.read_bytes()
