"""The set-up asks first, goes on after an interruption, and stands alone."""

import ast
import importlib.util
import json
import os
import re
import signal
import sys
import sysconfig

import pytest
from packaging.requirements import Requirement

from .helpers import ENVIRONMENT, ROOT, finish, start

SCRIPT = ROOT / 'tools/setup_env.py'
# The set-up with steps that do nothing, but wait for a file.
SHORT_STEPS = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location('setup_env', sys.argv[1])
it = importlib.util.module_from_spec(spec)
spec.loader.exec_module(it)

def step(number):
    def work(made):
        it.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        it.PYTHON.touch()
        (it.ROOT / 'mmsapa/_C.so').touch()
        it.run('sh', '-c', f'echo working at {number}; until [ -e go ]; do '
               f'sleep 0.02; done; echo {number} >> worked')
    return work

it.install_packages, it.install_stack, it.build_mmsapa = map(step, '123')
try:
    it.main()
except KeyboardInterrupt:
    sys.exit('Interrupted')
"""


@pytest.fixture
def clone(tmp_path):
    """A clone with no more than the set-up reads."""
    for folder in ('tools', 'requirements', 'csrc', 'mmsapa'):
        (tmp_path / folder).mkdir()
    for path in (SCRIPT, ROOT / 'setup.py', *ROOT.glob('requirements/*')):
        copy = tmp_path / path.relative_to(ROOT)
        copy.write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def setup_env(clone, monkeypatch):
    """The set-up of that clone, which must not get as far as a command."""
    spec = importlib.util.spec_from_file_location(
        'setup_env', clone / 'tools/setup_env.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ('STACK', 'PYTHON', 'FORCE_CUDA', 'CXX'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, 'run', lambda *_, **__: pytest.fail('it ran'))
    monkeypatch.setattr(sys, 'version_info', (3, 11, 7))
    return module


def message(setup_env):
    try:
        setup_env.main()
    except SystemExit as error:
        text = str(error)
    assert text.count('\n') == 0
    return text


@pytest.mark.parametrize(
    'version, stack, newest',
    [
        ((3, 9, 2), None, '3.12'),
        ((3, 15, 0), None, '3.14'),
        ((3, 13, 5), 'official', '3.12'),
        ((3, 9, 2), 'onedl', '3.14'),
    ],
)
def test_a_python_out_of_range(setup_env, monkeypatch, version, stack, newest):
    monkeypatch.setattr(sys, 'version_info', version)
    if stack:
        monkeypatch.setenv('STACK', stack)
    text = message(setup_env)
    assert f'expects Python 3.10 to {newest}' in text
    assert f'is 3.{version[1]}' in text
    assert 'PYTHON=python3.12 make demo' in text


@pytest.mark.parametrize('program', ['g++', 'make', 'git'])
def test_a_missing_program(setup_env, monkeypatch, program):
    which = setup_env.shutil.which
    monkeypatch.setattr(
        setup_env.shutil, 'which', lambda x: None if x == program else which(x)
    )
    text = message(setup_env)
    assert program in text and f'`apt install {program}`' in text


def test_a_missing_compiler_by_its_name(setup_env, monkeypatch):
    monkeypatch.setenv('CXX', 'clang++-99 -O2')
    assert 'the compiler clang++-99,' in message(setup_env)


def test_all_that_is_missing_of_python_in_one_sentence(
    setup_env, monkeypatch, tmp_path
):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    monkeypatch.setattr(
        sysconfig, 'get_paths', lambda: {'include': str(tmp_path)}
    )
    text = message(setup_env)
    assert 'the module ensurepip, the header Python.h' in text
    assert '`apt install python3.11-venv python3.11-dev`' in text


def test_a_stack_that_is_none(setup_env, monkeypatch):
    monkeypatch.setenv('STACK', 'mim')
    assert message(setup_env) == 'STACK expects official or onedl, got mim.'


@pytest.mark.parametrize('version', ['3.10', '3.11', '3.12', '3.13', '3.14'])
def test_every_python_gets_one_pin_of_each_package(version):
    names = []
    for path in ROOT.glob('requirements/*.txt'):
        for line in path.read_text().splitlines():
            if line.split('#')[0].strip():
                pin = Requirement(line.split('#')[0])
                assert re.fullmatch(r'==[\w.]+', str(pin.specifier)), line
                if not pin.marker or pin.marker.evaluate(
                    dict(python_version=version)
                ):
                    names.append(pin.name)
    assert len(names) == len({*names})
    assert {'torch', 'mmcv', 'onedl-mmcv', 'pytest'} <= {*names}


def test_an_old_python_reads_as_far_as_the_sentence():
    """What is newer than 3.6 would end in a SyntaxError instead."""
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


class Steps:
    """The set-up of a clone, whose steps wait for the file ``go``."""

    def __init__(self, clone):
        self.clone = clone
        self.go = clone / 'go'

    def start(self, program=SHORT_STEPS):
        script = self.clone / 'tools/setup_env.py'
        return start(self.clone, sys.executable, '-c', program, script)

    def run(self):
        self.go.touch()
        return finish(self.start())

    def done(self):
        path = self.clone / '.venv/made.json'
        return len(json.loads(path.read_text())['done'])

    def worked(self):
        path = self.clone / 'worked'
        return path.read_text().split() if path.exists() else []


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail(''.join(lines))


@pytest.mark.parametrize('whom', ['group', 'set-up'])
@pytest.mark.parametrize('how', ['SIGINT', 'SIGTERM', 'SIGKILL'])
def test_an_interrupted_step_is_done_anew(clone, whom, how):
    steps = Steps(clone)
    for number in (1, 2, 3):
        steps.go.unlink(missing_ok=True)
        process = steps.start()
        read_until(process, f'working at {number}')
        send = os.killpg if whom == 'group' else os.kill
        send(process.pid, getattr(signal, how))
        process.wait(60)
        assert process.returncode
        assert steps.done() == number - 1
        # What was left running ends before the step begins again.
        process = steps.start()
        steps.go.touch()
        output = finish(process)
        assert not process.returncode, output
        assert steps.done() == 3
        assert steps.worked()[-1] == '3'
        left = ['1', '2', '3'][number - 1 :]
        assert steps.worked()[-len(left) :] == left
        # The next round begins with this clone's next step.
        again = json.loads((clone / '.venv/made.json').read_text())
        del again['done'][number:]
        (clone / '.venv/made.json').write_text(json.dumps(again))


def test_a_second_run_does_nothing(clone):
    steps = Steps(clone)
    assert 'step 3 of 3' in steps.run()
    assert steps.run() == ''
    assert steps.worked() == ['1', '2', '3']


def test_what_has_changed_is_done_again(clone):
    steps = Steps(clone)
    steps.run()
    (clone / 'csrc/new.cpp').write_text('int i;')
    steps.run()
    assert steps.worked() == ['1', '2', '3', '3']
    (clone / 'requirements/official.txt').write_text('mmcv==2.0.0')
    (clone / 'requirements/onedl.txt').write_text('onedl-mmcv==2.0.0')
    steps.run()
    assert steps.worked()[4:] == ['2', '3']
    (clone / 'requirements/tests.txt').write_text('pytest')
    steps.run()
    assert steps.worked()[6:] == ['1', '2', '3']
    (clone / 'mmsapa/_C.so').unlink()
    steps.run()
    assert steps.worked()[9:] == ['3']


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason='one stack alone has this Python'
)
def test_another_stack_begins_with_a_new_environment(clone, monkeypatch):
    """The forks have the libraries' import names: never one over the other."""
    steps = Steps(clone)
    monkeypatch.delitem(ENVIRONMENT, 'STACK', raising=False)
    steps.run()
    monkeypatch.setitem(ENVIRONMENT, 'STACK', 'onedl')
    assert 'OpenMMLab (onedl)' in steps.run()
    assert steps.worked() == ['1', '2', '3'] * 2
    monkeypatch.delitem(ENVIRONMENT, 'STACK')
    assert steps.run() == ''


def test_cuda_asked_for_once_is_kept(clone, monkeypatch):
    """As in a container that is built where no GPU is seen."""
    steps = Steps(clone)
    steps.run()
    for flag in ('1', '0'):
        monkeypatch.setitem(ENVIRONMENT, 'FORCE_CUDA', flag)
        steps.run()
        monkeypatch.delitem(ENVIRONMENT, 'FORCE_CUDA')
        assert steps.run() == ''
    assert steps.worked() == ['1', '2', '3', '2', '3', '2', '3']


def test_two_at_once_take_turns(clone):
    steps = Steps(clone)
    first = steps.start()
    read_until(first, 'working at 1')
    second = steps.start()
    read_until(second, 'Waiting for another make in this clone.\n')
    steps.go.touch()
    assert finish(second) == ''
    assert finish(first)
    assert steps.worked() == ['1', '2', '3']


def test_a_step_that_fails_is_named(clone):
    program = SHORT_STEPS.replace('echo working', 'exit 3; echo working')
    process = Steps(clone).start(program)
    output = finish(process)
    assert process.returncode == 1
    assert 'This failed, see above: sh -c' in output
    assert Steps(clone).done() == 0
