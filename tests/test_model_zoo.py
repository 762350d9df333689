"""Index, metafiles and READMEs name the configs that there are."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(
    path.name
    for path in (ROOT / 'configs').iterdir()
    if path.is_dir() and path.name != '_base_'
)


def configs(folder):
    return {path.stem for path in (ROOT / 'configs' / folder).glob('*.py')}


def test_the_index_has_every_folder():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [
        f'configs/{folder}/metafile.yml' for folder in FOLDERS
    ]
    (collection,) = index['Collections']
    for path in collection['README'], collection['Code']['URL']:
        assert (ROOT / path).is_file()


@pytest.mark.parametrize('folder', FOLDERS)
def test_names_are_config_stems(folder):
    metafile = ROOT / 'configs' / folder / 'metafile.yml'
    models = yaml.safe_load(metafile.read_text())['Models']
    assert {model['Name'] for model in models} == configs(folder)
    assert len(models) == len(configs(folder))
    for model in models:
        assert model['Config'] == f'configs/{folder}/{model["Name"]}.py'
        assert model['In Collection'] == 'SAPA'


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_config_has_a_row(folder):
    readme = (ROOT / 'configs' / folder / 'README.md').read_text()
    links = re.findall(r'\[config\]\((.*?)\.py\)', readme)
    assert sorted(links) == sorted(configs(folder))
    for command in re.findall(r' (configs/\S+\.py)', readme):
        assert (ROOT / command).is_file()


@pytest.mark.parametrize(
    'page',
    [
        'README.md',
        'CONTRIBUTING.md',
        *(f'configs/{folder}/README.md' for folder in FOLDERS),
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    headings = {
        re.sub(r'[^\w -]', '', title.lower()).strip().replace(' ', '-')
        for title in re.findall(r'^#+ (.*)', text, re.MULTILINE)
    }
    for link in re.findall(r'\]\(([^)]+)\)', text):
        if link.startswith('#'):
            assert link[1:] in headings
        elif '://' not in link:
            assert (ROOT / page).parent.joinpath(link).exists(), link
