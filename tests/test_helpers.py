"""Tests end, also as a background job."""

import os
import signal
import sys

import pytest

from . import helpers
from .helpers import ROOT, finish, start


def test_ctrl_c_reaches_what_tests_start(tmp_path):
    program = 'import time; print(1, flush=True); time.sleep(60)'
    process = start(tmp_path, sys.executable, '-c', program)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert 'KeyboardInterrupt' in finish(process)


def test_ctrl_c_reaches_it_in_a_background_job_too():
    """Whose shell, unlike a terminal's, lets it ignore Ctrl-C."""
    program = """
import subprocess, sys
import tests
sleep = 'import time; print(1, flush=True); time.sleep(60)'
subprocess.run([sys.executable, '-c', sleep])
"""
    command = 'trap "" INT; exec "$0" -c "$1"'
    process = start(ROOT, 'sh', '-c', command, sys.executable, program)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert 'line 1, in <module>\nKeyboardInterrupt' in finish(process)


def test_no_program_is_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, 'PATIENCE', 0.5)
    process = start(tmp_path, 'sleep', 60)
    with pytest.raises(pytest.fail.Exception, match='no end in 0.5 s'):
        finish(process)
    assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, 'sleep', 60)
    with pytest.raises(pytest.fail.Exception, match='no checkpoint'):
        helpers.wait_for_note(process, tmp_path)
