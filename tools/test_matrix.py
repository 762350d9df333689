# Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
"""Tests mmsapa with another PyTorch, Python and stack, one row at a time.

    python tools/test_matrix.py torch-2.4

makes a virtual environment in a temporary folder, installs what the row names,
builds the files of this clone there, runs the row's tests, deletes the folder
and prints what came of it as a table. PyTorch's wheels on the package index
are CUDA builds: a row takes up to 8 GB where temporary files are (TMPDIR).
FORCE_CUDA=1 builds the CUDA operators too. Standard library only.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
# What mmengine and mmcv import, and what MMSegmentation and MMDetection do.
BASE = (
    'addict matplotlib opencv-python-headless pillow platformdirs pyyaml '
    'regex rich termcolor tqdm yapf '
)
MORE = (
    'ftfy prettytable pycocotools scipy shapely six tensorboard terminaltables'
)


class Row(NamedTuple):
    """What is installed together, and which tests are run with it."""

    python: str
    torch: str
    numpy: str
    # mmcv-lite is mmcv without operators, which takes no time to compile.
    stack: str = 'mmengine==0.10.7 mmcv-lite==2.1.0'
    packages: str = BASE
    tests: str = 'tests/test_build.py tests/ops tests/upsamplers'


ROWS = {
    'torch-2.1': Row(
        *('3.11', '2.1.2', '1.26.4'),
        'mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2',
        BASE + MORE,
        'tests',
    ),
    'torch-2.4': Row('3.10', '2.4.1', '1.26.4'),
    'torch-2.8': Row('3.12', '2.8.0', '2.2.6'),
    'torch-2.13': Row('3.11', '2.13.0', '2.4.6'),
    'torch-2.15': Row('3.13', '2.15.0', '2.4.6'),
}
HEAD = (
    *('torch', 'Python', 'numpy', 'stack', 'tests'),
    *('date', 'passed', 'failed', 'skipped', 'minutes'),
)
ASK = (
    'import json, platform, numpy, torch; print(json.dumps([torch.__version__,'
    ' platform.python_version(), numpy.__version__]))'
)


def find_python(version):
    """Find an interpreter, on PATH or among pyenv's."""
    home = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'))
    found = [*home.glob(f'versions/{version}.*/bin/python')]
    found = found[0] if found else shutil.which(f'python{version}')
    return found or sys.exit(
        f'This row expects Python {version}, and there is no python{version} '
        'on PATH: install it, or name another interpreter by --python.'
    )


def copy_clone(folder):
    """Copy the files that git knows, so that the clone stays as it is."""
    command = 'git', 'ls-files', '-zco', '--exclude-standard'
    names = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in filter(None, names.split('\0')):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def test(row, python, tests, folder):
    """Install, build and test in a folder.

    Returns:
        list[str]: Versions of torch, Python and numpy; and how many tests
        passed, failed and were skipped.
    """
    copy_clone(folder / 'clone')
    environment = dict(
        os.environ,
        PATH=f'{folder}/venv/bin{os.pathsep}{os.environ["PATH"]}',
        FORCE_CUDA=os.environ.get('FORCE_CUDA', '0'),
        OMP_NUM_THREADS='1',
    )
    place = dict(cwd=folder / 'clone', env=environment)

    def install(*arguments):
        command = 'python', '-m', 'pip', 'install', '-q', *arguments
        subprocess.run(command, check=True, **place)

    # Beside the clone: mmengine takes what lies in it for Python's own.
    subprocess.run([python, '-m', 'venv', folder / 'venv'], check=True)
    install('-r', 'requirements/build.txt')
    install(
        *(f'torch=={row.torch}', f'numpy=={row.numpy}'),
        *(*row.packages.split(), '-r', 'requirements/tests.txt'),
    )
    # pip's cache does not tell the PyTorch apart that mmcv was built with.
    stack = '--no-cache-dir', '--no-build-isolation', '--no-deps'
    install(*stack, *row.stack.split())
    install('--no-build-isolation', '--no-deps', '-e', '.')
    versions = subprocess.check_output(['python', '-c', ASK], **place)
    report = folder / 'report.xml'
    command = 'python', '-m', 'pytest', '-q', f'--junitxml={report}', *tests
    subprocess.run(command, **place)
    if not report.exists():
        sys.exit('pytest wrote no report; its reason stands above.')
    (suite,) = ElementTree.parse(report).iter('testsuite')
    ran, failures, errors, skipped = (
        int(suite.get(name))
        for name in ('tests', 'failures', 'errors', 'skipped')
    )
    failed = failures + errors
    counts = ran - failed - skipped, failed, skipped
    return [*json.loads(versions), *map(str, counts)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('row', choices=ROWS)
    parser.add_argument('tests', nargs='*', help="in place of the row's")
    parser.add_argument('--python', help='an interpreter, by its path')
    args = parser.parse_args()
    row, start = ROWS[args.row], time.monotonic()
    python = args.python or find_python(row.python)
    tests = args.tests or row.tests.split()
    with tempfile.TemporaryDirectory(prefix='mmsapa-') as folder:
        found = test(row, python, tests, Path(folder))
    minutes = f'{(time.monotonic() - start) / 60:.0f}'
    stack = row.stack.replace('==', ' ').replace(' mm', ', mm')
    date = datetime.date.today().isoformat()
    cells = *found[:3], stack, ' '.join(tests), date, *found[3:], minutes
    for line in (HEAD, ['---'] * len(HEAD), cells):
        print('|', ' | '.join(line), '|')
    sys.exit(found[4] != '0')


if __name__ == '__main__':
    main()
