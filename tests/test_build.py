"""What setup.py decides before it compiles."""

import os
import runpy
import sys
from pathlib import Path

import pytest
import setuptools
import torch
from setuptools import Distribution
from setuptools.command.build_ext import build_ext
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[1]
# What nvcc prints; a release, and the GPUs that it compiles for.
NVCC = """#!/bin/sh
case $1 in
--version) echo 'Cuda compilation tools, release {release}, V{release}.88';;
--list-gpu-code) printf '%s\\n' {arches};;
esac
"""


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Run the build up to where the compiler would begin.

    As on a machine without a GPU, with a CUDA build of PyTorch and a toolkit
    of these versions.
    """

    def build(
        release='13.0',
        arches='sm_75 sm_80 sm_86 sm_90 sm_100 sm_120',
        cuda='13.0',
        built='sm_60 sm_75 sm_80 sm_90 sm_90a sm_120 compute_120',
        gpus=0,
        headers='include',
    ):
        if release:
            nvcc = tmp_path / 'bin/nvcc'
            nvcc.parent.mkdir(exist_ok=True)
            nvcc.write_text(NVCC.format(release=release, arches=arches))
            nvcc.chmod(0o755)
            (tmp_path / headers).mkdir(exist_ok=True, parents=True)
            (tmp_path / headers / 'cuda_runtime.h').touch()
        monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(tmp_path))
        monkeypatch.setattr(torch.version, 'cuda', cuda)
        monkeypatch.setattr(torch.cuda, 'get_arch_list', built.split)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        # Here PyTorch's own command begins.
        started = []
        monkeypatch.setattr(
            *(cpp_extension.BuildExtension, 'run'),
            lambda self: started.append(self),
        )
        found = {}
        monkeypatch.setattr(setuptools, 'setup', lambda **kw: found.update(kw))
        monkeypatch.chdir(ROOT)
        runpy.run_path('setup.py')
        command = found['cmdclass']['build_ext']
        assert issubclass(command, build_ext)
        command(Distribution({'ext_modules': found['ext_modules']})).run()
        assert len(started) == 1
        sources = found['ext_modules'][0].sources
        return any(source.endswith('.cu') for source in sources)

    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '')
    monkeypatch.setenv('FORCE_CUDA', '')
    return build


def test_arches_of_pytorch_and_nvcc_where_there_is_no_gpu(build):
    assert build()
    assert os.environ['TORCH_CUDA_ARCH_LIST'] == '7.5;8.0;9.0;12.0+PTX'


def test_pytorch_understands_the_arches(build):
    build(built='sm_70 sm_75 sm_80 sm_90')
    flags = ' '.join(cpp_extension._get_cuda_arch_flags())
    for name in ('75', '80', '90'):
        assert f'arch=compute_{name},code=sm_{name}' in flags
    assert flags.count('code=compute_') == 1
    assert 'arch=compute_90,code=compute_90' in flags


def test_arches_that_are_asked_for_or_seen_stay(build, monkeypatch):
    build(gpus=1)
    assert os.environ['TORCH_CUDA_ARCH_LIST'] == ''
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.6')
    build()
    assert os.environ['TORCH_CUDA_ARCH_LIST'] == '8.6'


def test_arches_of_a_toolkit_older_than_pytorch(build):
    build(release='12.1', arches='sm_70 sm_75 sm_90', cuda='12.8')
    assert os.environ['TORCH_CUDA_ARCH_LIST'] == '7.5;9.0+PTX'


@pytest.mark.parametrize('force', ['', '1'])
def test_toolkit_of_another_major_version(build, monkeypatch, force):
    monkeypatch.setenv('FORCE_CUDA', force)
    with pytest.raises(SystemExit, match='is built for CUDA 12.8') as caught:
        build(cuda='12.8')
    assert 'is of version 13.0: name one of version 12.x' in str(caught.value)
    monkeypatch.setenv('FORCE_CUDA', '0')
    assert not build(cuda='12.8')
    assert os.environ['TORCH_CUDA_ARCH_LIST'] == ''


def test_cuda_folder_without_a_compiler(build, monkeypatch):
    assert not build(release=None)
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(SystemExit, match='no CUDA toolkit was found'):
        build(release=None)


def test_nvcc_that_lies_apart_from_its_toolkit(build):
    with pytest.raises(SystemExit, match='name the folder in CUDA_HOME'):
        build(headers='share')
    assert build(headers='targets/x86_64-linux/include')


@pytest.mark.parametrize(
    ('version', 'fits'),
    [('2.0.1+cu118', False), ('2.1.0', True), ('2.15.0', True)],
)
def test_oldest_pytorch(build, monkeypatch, version, fits):
    version = torch.torch_version.TorchVersion(version)
    monkeypatch.setattr(torch, '__version__', version)
    if fits:
        assert build()
        return
    with pytest.raises(SystemExit, match='needs PyTorch 2.1 or newer') as e:
        build()
    assert version in str(e.value)


def test_platform_that_is_not_linux(build, monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    with pytest.raises(SystemExit, match='builds on Linux alone.*darwin'):
        build()
