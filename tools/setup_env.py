# Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
"""Set up ``.venv``, the clone's own virtual environment; ``make`` calls this.

Two steps take long: the download of PyTorch, and the compilation of MMCV's
operators, because MMCV is published as source. The finished wheel stays in
the user's cache. ``.venv/made.json`` says which steps are done, and with what;
a step that was interrupted is done anew.

Standard library only, and no syntax newer than Python 3.6: an old Python has
to get as far as the sentence that says that it is too old.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
MADE, LOG, TMP = VENV / 'made.json', VENV / 'mmcv.log', VENV / 'tmp'
PYTHON = VENV / 'bin' / 'python'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
# By the newest Python that each works with; the oldest is 3.10.
STACKS = {'official': 12, 'onedl': 14}
MMCV_CORE_MINUTES = 18
# Files of pinned versions that are installed together.
PACKAGES = ('runtime', 'tests', 'docs', 'onnx')

# What MMCV's operators are compiled for.
ASK_TORCH = r"""
import json, re, torch
from torch.utils.cpp_extension import CUDA_HOME
gpus = [torch.cuda.get_device_capability(i)
        for i in range(torch.cuda.device_count())]
built = re.findall(r'code=sm_(\d+)(\d)', torch.__config__.show())
archs = {tuple(map(int, arch)) for arch in gpus or built}
archs = ['%d.%d' % arch for arch in sorted(archs) if arch >= (7, 0)]
print(json.dumps([torch.__version__, bool(torch.version.cuda and CUDA_HOME),
                  bool(gpus), ' '.join(archs) + '+PTX']))
"""


def check_machine(stack, with_python):
    """Stop with a sentence for what is missing, before any download."""
    major, minor = sys.version_info[:2]
    if with_python and not (3, 10) <= (major, minor) <= (3, STACKS[stack]):
        sys.exit(
            f'The {stack} stack expects Python 3.10 to 3.{STACKS[stack]}, and '
            f'{sys.executable} is {major}.{minor}: name another one, as in '
            '`PYTHON=python3.12 make demo`.'
        )
    python = f'python{major}.{minor}'
    compiler = (os.environ.get('CXX') or 'g++').split()[0]
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    venv = all(map(importlib.util.find_spec, ('venv', 'ensurepip')))
    needed = [
        (shutil.which(compiler), f'the compiler {compiler}', 'g++'),
        (shutil.which('make'), 'the program make', 'make'),
        (shutil.which('git'), 'the program git', 'git'),
    ]
    if with_python:
        needed.append((venv, 'the module ensurepip', python + '-venv'))
        needed.append(
            (header.exists(), 'the header Python.h', python + '-dev')
        )
    missing = [(what, package) for found, what, package in needed if not found]
    if missing:
        whats, packages = map(list, zip(*missing))
        sys.exit(
            f'Expected {", ".join(whats)}, which this machine lacks: on '
            f'Debian run, as root, `apt install {" ".join(packages)}`.'
        )


def environment(**more):
    """Return the environment of the steps, without other Pythons in it."""
    env = dict(os.environ, TMPDIR=str(TMP), PIP_NO_INPUT='1', **more)
    for name in ('PYTHONHOME', 'PYTHONPATH', 'PIP_USER', 'PIP_TARGET'):
        env.pop(name, None)
    env['PATH'] = f'{VENV}/bin{os.pathsep}{env.get("PATH", "")}'
    # A compiler process takes up to one GiB.
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30
    jobs = max(1, min(len(os.sched_getaffinity(0)), memory))
    env.setdefault('MAX_JOBS', str(jobs))
    return env


def run(*command, log=None, **env):
    """Run a command, its output perhaps into a log; stop if it fails."""
    TMP.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        [str(word) for word in command],
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if log else None,
        stderr=subprocess.STDOUT if log else None,
        universal_newlines=True,
        errors='replace',
        close_fds=False,  # holds the lock, should this process be killed
    )
    if log:
        follow(child.stdout, log)
    if child.wait():
        sys.exit(f'This failed, see {log or "above"}: {" ".join(child.args)}')


def follow(output, log):
    """Write the output to a log and show how far ninja is."""
    start = time.time()
    with open(str(log), 'w', errors='replace') as file:
        for line in output:
            file.write(line)
            step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
            if step:
                done, total = map(int, step.groups())
                left = (time.time() - start) / done * (total - done) / 60
                text = f'{done:3} of {total} files, {left:.0f} min left '
                end = '\r' if sys.stdout.isatty() else '\n'
                print(text, end=end, flush=True)


def pip(*words, **options):
    """Run the environment's pip."""
    run(PYTHON, '-m', 'pip', '--disable-pip-version-check', *words, **options)


def pins(name):
    """Return a file of pinned versions."""
    return ROOT / 'requirements' / (name + '.txt')


def install_packages(_):
    """Make ``.venv`` anew, with all that is taken ready-made."""
    shutil.rmtree(str(VENV), ignore_errors=True)
    # In this process: Ctrl-C would make another one print its traceback.
    import venv

    try:
        venv.create(str(VENV), symlinks=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f'Could not make the environment {VENV}: {error}')
    pip('install', '-r', pins('build'))
    pip('install', *(f'-r{pins(name)}' for name in PACKAGES))


def install_stack(made):
    """Install OpenMMLab's libraries, MMCV from the cache or compiled."""
    answer = subprocess.check_output(
        [str(PYTHON), '-W', 'ignore', '-c', ASK_TORCH], env=environment()
    )
    torch, toolkit, gpu, archs = json.loads(answer.decode())
    if made['cuda'] and not toolkit:
        sys.exit(
            'FORCE_CUDA=1 expects a CUDA build of PyTorch and a CUDA toolkit '
            f'(nvcc), and one is missing beside PyTorch {torch}: install it, '
            'or run `FORCE_CUDA=0 make env`.'
        )
    # MMCV asks for the toolkit as soon as it sees a GPU.
    target, env = 'cpu', dict(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    if toolkit and (gpu or made['cuda']):
        archs = os.environ.get('TORCH_CUDA_ARCH_LIST') or archs
        target = 'cuda' + re.sub(r'\W+', '_', archs)
        env = dict(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=archs)
    # pip's own cache does not tell one PyTorch from another.
    cache = CACHE / 'mmsapa' / f'torch{torch}-{target}'
    pip(
        *('install', '-v', '--no-deps', '--no-build-isolation'),
        *(
            '--force-reinstall',
            '--cache-dir',
            cache,
            '-r',
            pins(made['stack']),
        ),
        log=LOG,
        MMCV_WITH_OPS='1',
        # Debug information would double the time and make a tenfold wheel.
        CFLAGS=(os.environ.get('CFLAGS', '') + ' -g0').strip(),
        **env,
    )
    print(f'Loading MMCV; if it does not, remove {cache}', flush=True)
    run(PYTHON, '-W', 'ignore', '-c', 'import mmcv.ops')


def build_mmsapa(made):
    """Compile this clone's operators and put the clone on the path."""
    env = {'FORCE_CUDA': '1'} if made['cuda'] else {}
    pip('install', '--no-build-isolation', '--no-deps', '-e', ROOT, **env)


def set_up(made):
    """Do the steps from the first that is not done as it would be now."""
    stack, done = made['stack'], made['done']
    minutes = MMCV_CORE_MINUTES // int(environment()['MAX_JOBS'])
    packages = [pins(name) for name in ('build', *PACKAGES)]
    sources = [ROOT / 'setup.py', *sorted((ROOT / 'csrc').rglob('*.*'))]
    steps = (
        (install_packages, packages, 'PyTorch and others, a long download'),
        (
            install_stack,
            [pins(stack)],
            f'OpenMMLab ({stack}); MMCV compiles for {minutes} min, once',
        ),
        (build_mmsapa, sources, 'the operators of mmsapa'),
    )
    for index, (step, files, title) in enumerate(steps):
        first = step is install_packages
        wish = ROOT, stack, made['python'], made['cuda'] and not first
        key = hashlib.sha256(repr(wish).encode())
        for file in files:
            key.update(file.read_bytes())
        # Another Python's library is none for this one.
        gone = step is build_mmsapa and not any(
            (ROOT / f'mmsapa/_C{suffix}').exists()
            for suffix in EXTENSION_SUFFIXES
        )
        if done[index : index + 1] == [key.hexdigest()] and not gone:
            continue
        check_machine(stack, with_python=first)
        print(f'.venv, step {index + 1} of 3: {title}', flush=True)
        start = time.time()
        # Whatever interrupts: half a step is none, nor is any after it.
        del done[index:]
        write(made)
        shutil.rmtree(str(TMP), ignore_errors=True)
        step(made)
        done.append(key.hexdigest())
        write(made)
        print(f'Step {index + 1} took {time.time() - start:.0f} s', flush=True)


def write(made):
    """Write down what is done, as a whole or not at all."""
    VENV.mkdir(exist_ok=True)
    part = MADE.with_name('made.part')
    part.write_text(json.dumps(made))
    os.replace(str(part), str(MADE))


def main():
    """Set up as STACK, PYTHON and FORCE_CUDA say, or as it was before."""
    lock = open(str(ROOT / '.venv.lock'), 'w')
    os.set_inheritable(lock.fileno(), True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('Waiting for another make in this clone.', flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    version = '{}.{}'.format(*sys.version_info)
    official = sys.version_info[:2] <= (3, STACKS['official'])
    made = dict(done=[], python=version, cuda=False)
    made['stack'] = 'official' if official else 'onedl'
    if MADE.exists() and PYTHON.exists():
        before = json.loads(MADE.read_text())
        if before['python'] == version or not os.environ.get('PYTHON'):
            made = before
    if os.environ.get('STACK'):
        made['stack'] = os.environ['STACK']
    if os.environ.get('FORCE_CUDA'):
        made['cuda'] = os.environ['FORCE_CUDA'] == '1'
    if made['stack'] not in STACKS:
        sys.exit(f'STACK expects official or onedl, got {made["stack"]}.')
    set_up(made)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nInterrupted; the next make goes on with this step.')
