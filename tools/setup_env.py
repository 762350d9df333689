# Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
"""Prepares the clone's own virtual environment, ``.venv``.

``make`` calls this before every target. Each step leaves a stamp that holds
what the step depended on, so a second run finds all stamps right and ends at
once, and a run after an interruption goes on with the step that has none.

MMCV is published as source only. Its operators are compiled here, and the
finished wheel is kept in the user's cache for the next clone.

Uses the standard library only, and no syntax newer than Python 3.6: an old
Python has to get as far as the sentence that says it is too old.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STAMPS = VENV / 'stamps'
LOGS = VENV / 'logs'
CACHE = (
    Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    / 'mmsapa'
    / 'wheels'
)

SUPPORTED = ['3.10', '3.11', '3.12']
CORES = len(os.sched_getaffinity(0))
FORCE_CUDA = os.environ.get('FORCE_CUDA') == '1'
# How pip tells its progress to a program, from version 24.1 on.
RAW_PROGRESS = ['--progress-bar', 'raw']
# One core's minutes for MMCV's CPU operators; only the first guess.
MMCV_CORE_MINUTES = 18

# What .venv/bin/python says about the PyTorch it has.
ASK_TORCH = """
import json, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
gpus = range(torch.cuda.device_count())
print(json.dumps(dict(
    version=torch.__version__,
    python='cp%d%d' % sys.version_info[:2],
    cuda=torch.version.cuda,
    toolkit=CUDA_HOME,
    archs=sorted({'%d.%d' % torch.cuda.get_device_capability(i)
                  for i in gpus}))))
"""


class SetupError(Exception):
    """Something a user can mend, told in plain words."""


# --------------------------------------------------------------- one line


class StatusLine:
    """One line that is rewritten, or now and then a new one in a log."""

    PERIOD = 60  # seconds between two lines where none can be rewritten

    def __init__(self):
        self.live = sys.stdout.isatty() and os.environ.get('TERM') != 'dumb'
        self.last = time.time()

    def show(self, text):
        """Show ``text`` in place of what was there."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print('\r\033[K' + text[:width], end='', flush=True)
        elif time.time() - self.last >= self.PERIOD:
            self.last = time.time()
            print(text, flush=True)

    def end(self, text=None):
        """Clear the line; leave ``text`` behind for good."""
        if self.live:
            print('\r\033[K', end='', flush=True)
        if text:
            print(text, flush=True)
        self.last = time.time()


def in_words(seconds):
    """Return a duration such as ``6 min 40 s``."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'


class PipProgress:
    """Reads from pip's output what it is at."""

    def __init__(self):
        self.text = 'starting'

    def feed(self, line):
        """Take in one line of output."""
        found = re.match(r'\s*(Collecting|Downloading) ([\w.]+)', line)
        if found:
            self.text = found.group(1).lower() + ' ' + found.group(2)
        size = re.match(r'Progress (\d+) of (\d+)', line)
        if size and int(size.group(2)):
            done, total = (int(i) / 1e6 for i in size.groups())
            name = self.text.split(', ')[0]
            self.text = f'{name}, {done:.0f} of {total:.0f} MB'
        if line.startswith('Installing collected'):
            self.text = 'unpacking'

    def __str__(self):
        return self.text


class NinjaProgress:
    """Reads from ninja's output how far it is.

    A resumed build counts only the steps that are left. The file ``total``
    remembers how many there were at first.
    """

    def __init__(self, total=None, first_guess=None):
        self.file = total
        self.first_guess = first_guess
        self.start = time.time()
        self.done = self.steps = 0
        self.total = int(total.read_text()) if total and total.exists() else 0

    def feed(self, line):
        """Take in one line of output."""
        found = re.match(r'\s*\[(\d+)/(\d+)\]', line)
        if not found:
            return
        self.done, self.steps = int(found.group(1)), int(found.group(2))
        if self.steps > self.total:
            self.total = self.steps
            if self.file:
                self.file.write_text(str(self.total))

    def __str__(self):
        if self.total and not self.steps:
            return 'going on where it was interrupted'
        seconds = self.first_guess
        if self.done:
            spent = time.time() - self.start
            seconds = spent / self.done * (self.steps - self.done)
        if seconds is None:
            return 'compiling'
        if self.done and self.done == self.steps:
            left = 'linking'
        elif seconds < 60:
            left = 'less than a minute left'
        else:
            left = f'about {math.ceil(seconds / 60)} min left'
        if not self.total:
            return 'compiling, ' + left
        done = self.total - self.steps + self.done
        return f'[{done:3d}/{self.total}] compiling, {left}'


class Silent:
    """Stands in where the output tells nothing."""

    def feed(self, line):
        """Ignore the line."""

    def __str__(self):
        return 'at work'


# ------------------------------------------------------------ run a program

# From polite to certain.
STOPPING = signal.SIGINT, signal.SIGTERM, signal.SIGKILL


class Runner:
    """Runs the steps' programs one by one, under one lock per clone."""

    def __init__(self):
        self.status = StatusLine()
        self.lock = None
        self.asked = 0

    def acquire(self):
        """Wait until no other set-up works in this clone."""
        self.lock = open(str(ROOT / '.venv.lock'), 'a+')
        told = False
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self.stop_orphan()
            text = 'Waiting: another make is setting up this clone'
            if not told and not self.status.live:
                print(text, flush=True)
            told = True
            self.status.show(text)
            time.sleep(0.5)
        self.note_child('')
        self.status.end()

    def note_child(self, pid):
        """Write down who holds the lock: this process and its child."""
        self.lock.seek(0)
        self.lock.truncate()
        self.lock.write(f'{os.getpid()} {pid}\n')
        self.lock.flush()

    def stop_orphan(self):
        """End what a set-up that was itself killed has left running."""
        self.lock.seek(0)
        pids = self.lock.read().split()
        if len(pids) < 2 or Path('/proc', pids[0]).exists():
            return
        child = int(pids[1])
        try:
            # Numbers are used again: make sure that it is one of ours.
            ours = Path('/proc', pids[1], 'environ').read_bytes()
            if f'VIRTUAL_ENV={VENV}\0'.encode() in ours:
                # One of a background job does not hear Ctrl-C.
                number = STOPPING[min(self.asked // 20, len(STOPPING) - 1)]
                self.asked += 1
                os.killpg(child, number)
        except OSError:
            pass

    def run(self, title, command, progress=None, env=None, cwd=ROOT):
        """Run a command, its output in a log, its progress in one line.

        Args:
            title (str): What the user sees; names the log as well.
            command (list): The program and its arguments.
            progress (PipProgress | NinjaProgress | Silent): Reads the output.
            env (dict): Additional environment variables.
            cwd (Path): Where to run.

        Raises:
            SetupError: If the command fails.
        """
        progress = progress or Silent()
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / (re.sub(r'\W+', '-', title).lower() + '.log')
        start = time.time()
        with open(str(log), 'wb') as out, open(str(log), 'rb') as back:
            # The child holds the lock too: should this process be killed, a
            # second set-up does not build beside the orphan. Its own session
            # keeps Ctrl-C from it until it is told to stop, with its
            # children, below.
            child = subprocess.Popen(
                [str(i) for i in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=str(cwd),
                env=dict(environment(), **(env or {})),
                pass_fds=[self.lock.fileno()],
                start_new_session=True,
            )
            self.note_child(child.pid)
            rest = b''
            try:
                running = True
                while running:
                    try:
                        child.wait(timeout=0.25)
                        running = False
                    except subprocess.TimeoutExpired:
                        pass
                    *lines, rest = (rest + back.read()).split(b'\n')
                    for line in lines:
                        progress.feed(line.decode('utf-8', 'replace'))
                    self.status.show(f'{title}: {progress}')
            except KeyboardInterrupt:
                stop(child)
                raise
        if child.returncode:
            self.status.end()
            raise SetupError(failure(title, log))
        spent = in_words(time.time() - start)
        self.status.end(f'{title}: done in {spent}')


def stop(child):
    """Ask a child and its children to end, as Ctrl-C would."""
    for number in STOPPING:
        try:
            os.killpg(child.pid, number)
            child.wait(timeout=10)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass


def failure(title, log):
    """Put together what to tell about a failed command."""
    lines = log.read_text(errors='replace').splitlines()
    errors = [i for i in lines[:-12] if re.search(r'\berror\b', i, re.I)]
    shown = errors[:4] + (['...'] if errors else []) + lines[-12:]
    shown = ''.join('\n  ' + i[:300] for i in shown)
    return f'{title} failed. The last lines of {log}:{shown}'


def environment():
    """Return the environment for the steps, cleared of other Pythons."""
    env = dict(os.environ)
    for name in (
        'PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_QUIET '
        'PIP_REQUIRE_VIRTUALENV PIP_NO_BINARY PIP_PROGRESS_BAR'
    ).split():
        env.pop(name, None)
    env.update(
        PATH=str(VENV / 'bin') + os.pathsep + env.get('PATH', ''),
        VIRTUAL_ENV=str(VENV),
        PYTHONUNBUFFERED='1',
        PIP_DISABLE_PIP_VERSION_CHECK='1',
        PIP_NO_INPUT='1',
    )
    # A compiler process takes up to one GiB.
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    env.setdefault('MAX_JOBS', str(max(1, min(CORES, memory >> 30))))
    return env


def pip(*arguments):
    """Return a pip command of the environment."""
    return [PYTHON, '-m', 'pip'] + list(arguments)


# ------------------------------------------------------------------- steps


def check_machine(python_too):
    """Check what has to be there before anything is downloaded.

    Args:
        python_too (bool): Whether this Python has to serve for ``.venv``.

    Raises:
        SetupError: Naming each missing thing and the package it is in.
    """
    missing = []
    if python_too:
        version = '{}.{}'.format(*sys.version_info)
        if version not in SUPPORTED:
            raise SetupError(
                f'Python 3.10, 3.11 or 3.12 is needed, and {sys.executable} '
                f'is Python {version}: name another, as in '
                '`PYTHON=python3.11 make demo`.'
            )
        if not find_spec('venv') or not find_spec('ensurepip'):
            package = f'python{version}-venv'
            missing.append(('The Python module ensurepip', package))
        header = Path(sysconfig.get_paths()['include']) / 'Python.h'
        if not header.is_file():
            missing.append(('The header Python.h', f'python{version}-dev'))
    compiler = (os.environ.get('CXX') or 'g++').split()[0]
    if not shutil.which(compiler):
        missing.append(('The C++ compiler ' + compiler, 'g++'))
    for program in 'make', 'git':
        if not shutil.which(program):
            missing.append(('The program ' + program, program))
    if missing:
        raise SetupError(
            '\n'.join(
                f'{what} is missing; Debian: apt install {package}'
                for what, package in missing
            )
        )


def check_venv():
    """Refuse to serve a PYTHON that .venv was not made with."""
    wanted = os.environ.get('PYTHON')
    version = '{}.{}'.format(*sys.version_info)
    there = (VENV / 'pyvenv.cfg').read_text()
    there = re.search(r'^version\s*=\s*(\d+\.\d+)', there, re.M).group(1)
    if wanted and there != version:
        raise SetupError(
            f'PYTHON={wanted} is Python {version}, but .venv was made with '
            f'{there}: run `make clean` first.'
        )


def read_requirements():
    """Read the three parts of requirements.txt.

    Returns:
        dict[str, list[str]]: Lines that pip understands, per part.
    """
    parts, lines = {}, []
    for line in (ROOT / 'requirements.txt').read_text().splitlines():
        heading = re.match(r'# \[(\w+)\]', line)
        if heading:
            lines = parts.setdefault(heading.group(1), [])
        line = line.split('#')[0].strip()
        if line:
            lines.append(line)
    return parts


def digest(*values):
    """Return a short hash of strings, lists and files."""
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, Path):
            total.update(value.read_bytes())
        total.update(repr(value).encode())
    return total.hexdigest()[:16]


def is_done(step, key):
    """Tell whether a step has been done with what it depends on now."""
    stamp = STAMPS / step
    if not stamp.exists():
        return False
    text = stamp.read_text().split()
    if FORCE_CUDA and step in ('mmcv', 'mmsapa'):
        return text == [key, 'cuda']
    # What was built with CUDA on demand also serves who does not ask for it.
    return text[:1] == [key]


def set_done(step, key):
    """Leave a step's stamp, whole or not at all."""
    STAMPS.mkdir(parents=True, exist_ok=True)
    part = STAMPS / (step + '.part')
    part.write_text(key + (' cuda' if FORCE_CUDA else ''))
    os.replace(str(part), str(STAMPS / step))


def make_venv(runner, _):
    """Create an empty virtual environment."""
    if VENV.exists():
        shutil.rmtree(str(VENV))
    command = [sys.executable, '-m', 'venv', VENV]
    runner.run('Virtual environment', command)


def install(runner, title, lines, *options):
    """Install pinned packages."""
    wanted = VENV / 'wanted.txt'
    wanted.write_text('\n'.join(lines) + '\n')
    runner.run(title, pip('install', '-r', wanted, *options), PipProgress())


def install_tools(runner, parts):
    """Install what the following steps build and install with."""
    install(runner, 'Build tools', parts['tools'])


def install_packages(runner, parts):
    """Install PyTorch and all that is taken ready-made."""
    install(
        runner, 'PyTorch and other packages', parts['packages'], *RAW_PROGRESS
    )


def install_openmmlab(runner, parts):
    """Install the libraries above MMCV."""
    lines = [i for i in parts['openmmlab'] if not i.startswith('mmcv==')]
    install(
        runner, 'MMEngine, MMSeg and MMDet', lines, '--no-deps', *RAW_PROGRESS
    )


def ask_torch():
    """Return what the installed PyTorch is and what MMCV is built for."""
    command = [str(PYTHON), '-W', 'ignore', '-c', ASK_TORCH]
    try:
        answer = subprocess.check_output(command, env=environment())
    except subprocess.CalledProcessError:
        raise SetupError(
            'PyTorch does not load in .venv, see above.'
        ) from None
    torch = json.loads(answer.decode())
    can_cuda = torch['cuda'] and torch['toolkit']
    if FORCE_CUDA and not can_cuda:
        lacks = f'PyTorch {torch["version"]} is not a CUDA build'
        if torch['cuda']:
            lacks = 'no CUDA toolkit (nvcc) was found'
        raise SetupError(f'FORCE_CUDA=1 is set, but {lacks}.')
    torch['use_cuda'] = bool(can_cuda and (FORCE_CUDA or torch['archs']))
    if torch['archs'] and not can_cuda:
        print(
            'A GPU is there and no CUDA toolkit (nvcc): the operators are '
            'built for the CPU only.'
        )
    return torch


def wheel_folder(torch):
    """Return where the user's cache keeps MMCV for this PyTorch."""
    parts = [sys.platform, os.uname().machine, torch['python']]
    parts.append('torch' + torch['version'])
    if torch['use_cuda']:
        archs = os.environ.get('TORCH_CUDA_ARCH_LIST', '')
        archs = re.sub(r'[^\w.+]+', '_', archs) or '_'.join(torch['archs'])
        parts += ['cuda' + torch['cuda'], archs or 'all']
    else:
        parts.append('cpu')
    return '-'.join(parts)


def install_mmcv(runner, parts):
    """Install MMCV from the user's cache, or compile it first."""
    pin = next(i for i in parts['openmmlab'] if i.startswith('mmcv=='))
    torch = ask_torch()
    folder = wheel_folder(torch)
    name = pin.replace('==', '-') + '-*.whl'
    for cached in (CACHE / folder).glob(name):
        try:
            install_wheel(runner, cached, f'MMCV from {CACHE.parent}')
            break
        except SetupError:
            # Say, another compiler's library, from a shared home folder.
            print('The cached MMCV does not work here: compiling it again.')
    else:
        wheel = compile_mmcv(runner, pin, torch, VENV / 'src' / folder)
        install_wheel(runner, wheel, 'MMCV')
        keep_wheel(wheel, CACHE / folder)
    shutil.rmtree(str(VENV / 'src'), ignore_errors=True)


def keep_wheel(wheel, folder):
    """Copy a wheel to the cache, whole or not at all."""
    part = folder / f'{os.getpid()}.part'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(wheel), str(part))
        os.replace(str(part), str(folder / wheel.name))
    except OSError as error:
        print(f'MMCV was not kept for other clones: {error}')


def install_wheel(runner, wheel, title):
    """Install a finished MMCV and see that its operators load."""
    runner.run(
        title,
        # Neither pip's cache nor an index may offer another build.
        pip('install', '--no-index', '--no-deps', '--no-cache-dir')
        + ['--force-reinstall', wheel],
    )
    check = [PYTHON, '-W', 'ignore', '-c', 'import mmcv.ops']
    runner.run('Check of MMCV', check)


def compile_mmcv(runner, pin, torch, folder):
    """Compile MMCV in a folder that keeps what is finished.

    Args:
        runner (Runner): Runs and shows.
        pin (str): Such as ``mmcv==2.1.0``.
        torch (dict): What ``ask_torch`` said.
        folder (Path): Belongs to this PyTorch alone.

    Returns:
        Path: The wheel.
    """
    source = folder / pin.replace('==', '-')
    if not source.exists():
        download_source(runner, pin, folder)
    env = dict(
        MMCV_WITH_OPS='1',
        # Debug information would double the time and make a tenfold wheel.
        CFLAGS=(os.environ.get('CFLAGS', '') + ' -g0').strip(),
        FORCE_CUDA='1' if torch['use_cuda'] else '0',
    )
    if not torch['use_cuda']:
        # MMCV asks for the toolkit as soon as it sees a GPU.
        env['CUDA_VISIBLE_DEVICES'] = ''
    jobs = int(environment()['MAX_JOBS'])
    guess = None
    if not torch['use_cuda']:
        guess = MMCV_CORE_MINUTES * 60 / min(jobs, CORES)
    runner.run(
        'MMCV operators',
        [PYTHON, '-W', 'ignore', 'setup.py', 'bdist_wheel'],
        NinjaProgress(folder / 'total', guess),
        env=env,
        cwd=source,
    )
    return sorted((source / 'dist').glob('*.whl'))[-1]


def download_source(runner, pin, folder):
    """Fetch and unpack MMCV's source, whole or not at all."""
    part = folder / 'part'
    if part.exists():
        shutil.rmtree(str(part))
    part.mkdir(parents=True)
    runner.run(
        'MMCV source',
        pip('download', *RAW_PROGRESS, '--dest', part)
        + ['--no-deps', '--no-binary', 'mmcv', '--no-build-isolation', pin],
        PipProgress(),
    )
    with tarfile.open(str(next(part.glob('*.tar.gz')))) as archive:
        if hasattr(tarfile, 'data_filter'):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(str(part))
    name = pin.replace('==', '-')
    os.replace(str(part / name), str(folder / name))
    shutil.rmtree(str(part))


def build_mmsapa(runner, _):
    """Compile this clone's operators and put the clone on the path."""
    runner.run(
        'mmsapa operators',
        pip('install', '-v', '--no-build-isolation', '--no-deps')
        + ['--no-index', '-e', ROOT],
        NinjaProgress(),
    )


def sources_of_mmsapa():
    """Return the files, and the version, whose change asks for a build."""
    files = [ROOT / 'setup.py', ROOT / 'pyproject.toml']
    version = (ROOT / 'mmsapa' / '__init__.py').read_text()
    version = re.findall(r'^__version__.*', version, re.M)
    for ending in '.h', '.cuh', '.cpp', '.cu':
        files += (ROOT / 'csrc').rglob('*' + ending)
    return sorted(files) + version


def set_up(runner):
    """Do the steps that are not done yet."""
    parts = read_requirements()
    torch = [i for i in parts['packages'] if i.startswith('torch==')]
    openmmlab = torch + parts['openmmlab']
    # name, what the step depends on, what it does
    steps = [
        ('venv', [str(ROOT)], make_venv),
        ('tools', parts['tools'], install_tools),
        ('packages', parts['packages'], install_packages),
        ('openmmlab', parts['openmmlab'], install_openmmlab),
        ('mmcv', openmmlab, install_mmcv),
        ('mmsapa', torch + sources_of_mmsapa(), build_mmsapa),
    ]
    start = time.time()
    is_new = not PYTHON.exists() or not is_done('venv', digest(str(ROOT)))
    if not is_new:
        check_venv()
    done_any = False
    for step, depends, action in steps:
        key = digest(*depends)
        # The library may have been cleaned away, which no stamp knows.
        gone = step == 'mmsapa' and not any(ROOT.glob('mmsapa/_C*.so'))
        if not is_new and not gone and is_done(step, key):
            continue
        if not done_any:
            check_machine(python_too=is_new)
            if is_new:
                announce()
        action(runner, parts)
        set_done(step, key)
        done_any = True
    if done_any:
        print(f'.venv is ready after {in_words(time.time() - start)}.')


def announce():
    """Say how long it takes before it starts."""
    minutes = math.ceil(MMCV_CORE_MINUTES / CORES)
    print(
        'Setting up .venv: some minutes of downloads, then about '
        f'{minutes} minutes on {CORES} cores\nto compile MMCV, once: the '
        f'result is kept in {CACHE.parent}.\n'
        'Ctrl-C is safe, the next make goes on from there.',
        flush=True,
    )


def main():
    """Set up and return the exit status."""

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    runner = Runner()
    try:
        runner.acquire()
        set_up(runner)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        runner.status.end()
        print('Interrupted; the next make goes on from here.', flush=True)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
