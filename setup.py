# Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
"""Builds mmsapa and its operators with the PyTorch that is installed."""

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    torch = None

NO_TORCH = (
    'mmsapa compiles its operators with the PyTorch that is installed, and '
    f'no torch can be imported by {sys.executable} in this build: install '
    'torch first, then run `pip install --no-build-isolation .` (without '
    '--no-build-isolation pip builds in an empty environment, where torch '
    'is not importable).'
)
TOO_OLD = (
    'mmsapa needs PyTorch 2.1 or newer, and PyTorch {torch} is installed: '
    'install a newer one.'
)
NO_LINUX = (
    'mmsapa builds on Linux alone, and this is {platform}: build it there '
    '(on Windows in WSL; MSVC cannot compile the CPU kernels).'
)
NO_COMPILER = (
    'mmsapa compiles its operators, and no C++ compiler was found: install '
    'one (Debian: apt install g++) or name it in CXX.'
)
OTHER_CUDA = (
    'PyTorch {torch} is built for CUDA {theirs}, and the CUDA toolkit in '
    '{home} is of version {ours}: name one of version {major}.x in '
    'CUDA_HOME, or set FORCE_CUDA=0 to build the CPU operators alone.'
)
NO_HEADERS = (
    "{home}: expected the CUDA toolkit's folder, whose nvcc is on PATH, got "
    'one without include/cuda_runtime.h: name the folder in CUDA_HOME, or '
    'set FORCE_CUDA=0 to build the CPU operators alone.'
)


def read_version():
    """Read the version without importing the package."""
    text = Path('mmsapa/__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.M).group(1)


def wants_cuda():
    """Decide whether the CUDA operators are built.

    Returns:
        bool: What ``FORCE_CUDA`` says where it is set (1 or 0), otherwise
        whether PyTorch is a CUDA build and a CUDA toolkit is there.
    """
    force = os.environ.get('FORCE_CUDA', '')
    if force == '0':
        return False
    is_cuda_torch = torch.version.cuda is not None
    # Images that only run CUDA have its folder too, but no compiler.
    has_toolkit = find_nvcc() is not None
    if force == '1' and not is_cuda_torch:
        raise SystemExit(
            f'FORCE_CUDA=1 is set, but PyTorch {torch.__version__} is not a '
            'CUDA build: install one that is, or unset FORCE_CUDA to build '
            'the CPU operators.'
        )
    if force == '1' and not has_toolkit:
        raise SystemExit(
            'FORCE_CUDA=1 is set, but no CUDA toolkit was found: put its '
            'nvcc on PATH or name its folder in CUDA_HOME.'
        )
    return is_cuda_torch and has_toolkit


def find_nvcc():
    """Find the compiler of the CUDA toolkit that PyTorch has found."""
    home = cpp_extension.CUDA_HOME
    return home and shutil.which('nvcc', path=os.path.join(home, 'bin'))


def ask_nvcc(option):
    """Run nvcc with an option; return what it prints."""
    return subprocess.run(
        [find_nvcc(), option], check=True, capture_output=True, text=True
    ).stdout


def check_toolkit():
    """Raise if the CUDA toolkit is incomplete, or not PyTorch's major one."""
    home = cpp_extension.CUDA_HOME
    # An nvcc on PATH may be a script that starts one elsewhere.
    places = f'{home}/include', f'{home}/targets/*/include'
    if not any(glob(f'{place}/cuda_runtime.h') for place in places):
        raise SystemExit(NO_HEADERS.format(home=home))
    ours = re.search(r'release (\d+\.\d+)', ask_nvcc('--version')).group(1)
    theirs = torch.version.cuda
    major = theirs.partition('.')[0]
    if ours.partition('.')[0] != major:
        raise SystemExit(
            OTHER_CUDA.format(
                torch=torch.__version__,
                theirs=theirs,
                home=home,
                ours=ours,
                major=major,
            )
        )


def default_arches():
    """Choose GPUs to compile for where none is here to be asked.

    Returns:
        str: A ``TORCH_CUDA_ARCH_LIST``: all that both PyTorch was built for
        and nvcc knows, from 7.0 on, and PTX of the newest for those to come.
    """
    # Without a GPU the public function of older PyTorch lists nothing.
    built = torch.cuda.get_arch_list() or torch._C._cuda_getArchFlags().split()
    known = ask_nvcc('--list-gpu-code').split()
    numbers = [
        int(arch[3:])
        for arch in {*built} & {*known}
        if re.fullmatch(r'sm_\d+', arch)
    ]
    arches = [f'{n // 10}.{n % 10}' for n in sorted(numbers) if n >= 70]
    return ';'.join(arches) + '+PTX'


def make_extension():
    """Describe the one shared library that holds all operators."""
    sources = sorted(glob('csrc/*.cpp') + glob('csrc/cpu/*.cpp'))
    if torch is None:
        # Never built; it is here so that BuildOps runs and says why.
        return Extension('mmsapa._C', sources)
    kind = cpp_extension.CppExtension
    # No -fopenmp: csrc/cpu/parallel.h says why.
    flags = {'cxx': ['-O3', '-g0']}
    if wants_cuda():
        kind = cpp_extension.CUDAExtension
        sources += sorted(glob('csrc/cuda/*.cu') + glob('csrc/cuda/*.cpp'))
        flags['nvcc'] = ['-O3']
    return kind(
        'mmsapa._C',
        sources,
        include_dirs=[os.path.abspath('csrc')],
        depends=glob('csrc/**/*.*', recursive=True),
        extra_compile_args=flags,
    )


class BuildPackage(build_py):
    """The package alone, without what an earlier build left behind."""

    def run(self):
        """Empty the folder that becomes the wheel, then copy."""
        if not getattr(self, 'editable_mode', False):
            package = os.path.join(self.build_lib, 'mmsapa')
            shutil.rmtree(package, ignore_errors=True)
        super().run()


class BuildOps(build_ext if torch is None else cpp_extension.BuildExtension):
    """PyTorch's build with plain words for what is missing."""

    def finalize_options(self):
        """Keep the object files of every PyTorch apart."""
        super().finalize_options()
        if torch is not None:
            # An editable install would build in a temporary folder, and
            # ninja does not notice that PyTorch itself has changed.
            python = sys.implementation.cache_tag
            self.build_temp = os.path.abspath(
                f'build/temp-{python}-torch{torch.__version__}'
            )
            # Without this a library built against another PyTorch, or
            # without CUDA, passes as up to date.
            self.force = True

    def run(self):
        """Check what a build needs, then build."""
        if torch is None:
            raise SystemExit(NO_TORCH)
        if torch.__version__ < (2, 1):
            raise SystemExit(TOO_OLD.format(torch=torch.__version__))
        if sys.platform != 'linux':
            raise SystemExit(NO_LINUX.format(platform=sys.platform))
        # PyTorch compiles with $CXX or c++ and setuptools links with g++.
        compilers = [os.environ['CXX']] if os.environ.get('CXX') else []
        for compiler in compilers or ['c++', 'g++']:
            if not shutil.which(compiler.split()[0]):
                raise SystemExit(NO_COMPILER)
        if wants_cuda():
            check_toolkit()
            # PyTorch takes the GPUs that it sees, and fails where it sees
            # none, as in every build of a docker image.
            arches = os.environ.get('TORCH_CUDA_ARCH_LIST')
            if not arches and not torch.cuda.device_count():
                os.environ['TORCH_CUDA_ARCH_LIST'] = default_arches()
        super().run()


setup(
    name='mmsapa',
    version=read_version(),
    description='SAPA upsampling for MMSegmentation and MMDetection',
    long_description=Path('README.md').read_text(encoding='utf-8')
    if Path('README.md').exists()
    else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmsapa', 'mmsapa.*']),
    # Where mmengine looks for `mmsapa::segformer/….py`; links to the files.
    package_data={'mmsapa': ['.mim/*.yml', '.mim/configs/*/*']},
    # torch, mmcv, mmengine, mmseg and mmdet are missing on purpose: pip
    # would put its own choice in place of the builds and forks that are
    # installed. The extras name them for those who want pip to fetch them;
    # the official ones and the forks have the same import names, and must
    # not be mixed.
    install_requires=[],
    extras_require={
        'seg': [
            'mmengine>=0.10',
            'mmcv>=2.0.0rc4,<2.2',
            'mmsegmentation>=1.2',
            'ftfy',
            'regex',
        ],
        'det': ['mmengine>=0.10', 'mmcv>=2.0.0rc4,<2.2', 'mmdet>=3.3'],
        'seg-onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3',
            'onedl-mmsegmentation>=1.4',
        ],
        'det-onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3',
            'onedl-mmdetection>=3.5',
        ],
        'dev': ['pytest', 'ruff', 'clang-format', 'ninja'],
    },
    ext_modules=[make_extension()],
    cmdclass={'build_ext': BuildOps, 'build_py': BuildPackage},
    zip_safe=False,
)
