"""``python -m mmsapa.info``, in this environment and in broken ones."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mmsapa import info, ops
from mmsapa.ops import registrations


def lines(text):
    return {line[:17].strip(): line[17:] for line in text.splitlines()}


@pytest.fixture
def report(capsys):
    """Run it here; returns the exit code and the values by their names."""

    def run():
        code = info.main()
        out, err = capsys.readouterr()
        assert not err
        return code, lines(out)

    return run


def test_names_what_is_installed_and_passes_the_self_test(report):
    code, found = report()
    assert code == 0
    assert found['torch'].startswith(torch.__version__)
    for library, names in (
        ('mmcv', ('mmcv', 'onedl-mmcv')),
        ('mmengine', ('mmengine', 'onedl-mmengine')),
        ('mmseg', ('mmsegmentation', 'onedl-mmsegmentation')),
        ('mmdet', ('mmdet', 'onedl-mmdetection')),
    ):
        pytest.importorskip(library)
        present = [
            name
            for name in names
            if name in metadata.packages_distributions()[library]
        ]
        assert present
        for name in present:
            assert f'{name} {metadata.version(name)}' in found[library]
    assert found['sapa layer'] == found['upsampler slot'] == 'found'
    assert found['mmcv operators'] == 'found'
    assert found['CPU operators'] == 'found'
    assert found['instruction set'] == torch.backends.cpu.get_cpu_capability()
    assert found['self-test cpu'] == 'passed'
    assert 'self-test cuda:0' in found or 'none' in found['GPU']


def test_a_wrong_operator_fails(report, monkeypatch):
    right = ops.sapa_upsample

    def wrong(*args):
        return right(*args).roll(1, -1)

    monkeypatch.setattr(ops, 'sapa_upsample', wrong)
    code, found = report()
    assert code == 1
    assert found['self-test cpu'].startswith('failed, AssertionError: ')


def test_a_wrong_gradient_fails(report, monkeypatch):
    right = ops.sapa_upsample

    def wrong(query, key, value):
        return right(query, key.detach() + 0 * key, value)

    monkeypatch.setattr(ops, 'sapa_upsample', wrong)
    code, found = report()
    assert code == 1 and found['self-test cpu'].startswith('failed')


def test_libraries_that_are_absent_are_no_failure(report, monkeypatch):
    for name in ('mmcv', 'mmengine', 'mmseg', 'mmdet'):
        monkeypatch.setitem(sys.modules, name, None)
    code, found = report()
    assert code == 0
    assert found['mmcv'] == found['mmdet'] == 'not installed'


def test_operators_that_were_not_built_are_named(report, monkeypatch):
    monkeypatch.setattr(registrations, 'has_kernel', lambda device_type: False)
    monkeypatch.setattr(registrations, 'load_kernels', lambda: False)
    assert report()[1]['CPU operators'].startswith('none, Build them with')
    # From the folder of a clone where nothing was built.
    monkeypatch.setattr(registrations, '_libraries', lambda: [])
    assert 'hides one that is installed' in report()[1]['CPU operators']
    monkeypatch.setattr(registrations, 'load_kernels', lambda: True)
    assert report()[1]['CUDA operators'].endswith('built without them')


def test_a_library_of_another_python_is_left_alone(monkeypatch, tmp_path):
    (tmp_path / 'ops').mkdir()
    for name in '_C.cpython-399-x86_64-linux-gnu.so', '_C.so':
        (tmp_path / name).touch()
    monkeypatch.setattr(
        registrations, '__file__', str(tmp_path / 'ops/registrations.py')
    )
    assert registrations._libraries() == [tmp_path / '_C.so']


def test_operators_for_another_torch_are_named(report, monkeypatch, tmp_path):
    (tmp_path / 'ops').mkdir()
    (tmp_path / '_C.so').write_bytes(b'no library')
    monkeypatch.setattr(
        registrations, '__file__', str(tmp_path / 'ops/registrations.py')
    )
    monkeypatch.setattr(registrations, 'has_kernel', lambda device_type: False)
    code, found = report()
    assert '_C.so was built for another torch than' in found['CPU operators']


def test_a_compiler_that_is_absent_is_named(report, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert report()[1]['C++ compiler'].startswith('none, FileNotFoundError')


def run_module(*paths):
    path = [*map(str, paths), str(Path(info.__file__).parents[1])]
    result = subprocess.run(
        [sys.executable, '-m', 'mmsapa.info'],
        cwd=paths[0],  # which Python searches first
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not result.stderr
    return result.returncode, lines(result.stdout)


@pytest.mark.skipif(
    not registrations._libraries(), reason='nothing is compiled'
)
def test_operators_of_other_sources_are_named(tmp_path):
    shutil.copytree(Path(info.__file__).parent, tmp_path / 'mmsapa')
    path = tmp_path / 'mmsapa/ops/registrations.py'
    text = path.read_text()
    newer = text.replace('Tensor? prior=None)', 'Tensor? prior=None, int a=0)')
    assert newer != text
    path.write_text(newer)
    _, found = run_module(tmp_path)
    assert 'was built from older or newer' in found['CPU operators']
    assert found['self-test cpu'] == 'passed'


def test_a_broken_mmcv_is_a_line_and_no_traceback(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text(
        "raise ImportError('_ext.so: undefined\\nsymbol')"
    )
    code, found = run_module(tmp_path)
    assert code == 0 and found['self-test cpu'] == 'passed'
    words = 'ImportError: _ext.so: undefined symbol'
    assert f'cannot be imported, {words}' in found['mmcv']
    assert found['upsampler slot'] == f'none, {words}'
    assert found['sapa layer'] == 'found'


def test_a_fork_over_the_official_library_is_named(
    report, monkeypatch, tmp_path
):
    for name in ('mmcv', 'onedl-mmcv'):
        folder = tmp_path / f'{name.replace("-", "_")}-99.0.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(f'Name: {name}\nVersion: 99.0\n')
        (folder / 'top_level.txt').write_text('mmcv\n')
    pytest.importorskip('mmcv')
    monkeypatch.syspath_prepend(tmp_path)
    _, found = report()
    assert found['mmcv'].endswith(' (mmcv 99.0, onedl-mmcv 99.0)')


def test_a_broken_torch_is_a_line_and_a_failure(tmp_path):
    (tmp_path / 'torch.py').write_text("raise OSError('libcudart.so.12')")
    code, found = run_module(tmp_path)
    assert code == 1
    assert 'cannot be imported, OSError: libcudart.so.12' in found['torch']
    assert found['self-test'] == 'not run, OSError: libcudart.so.12'
