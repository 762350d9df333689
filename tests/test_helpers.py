"""Tests end, also as a background job."""

import os
import signal
import subprocess
import sys

import pytest

from . import helpers
from .helpers import ENVIRONMENT, ROOT, finish, start


def test_ctrl_c_reaches_what_tests_start(tmp_path):
    program = 'import time; print(1, flush=True); time.sleep(60)'
    process = start(tmp_path, sys.executable, '-c', program)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert 'KeyboardInterrupt' in finish(process)


def test_ctrl_c_reaches_it_in_a_background_job_too():
    """Whose shell, unlike a terminal's, lets it ignore Ctrl-C."""
    test = f'{__file__}::{test_ctrl_c_reaches_what_tests_start.__name__}'
    command = 'trap "" INT; exec "$0" -m pytest -q -p no:cacheprovider "$1"'
    result = subprocess.run(
        ['sh', '-c', command, sys.executable, test],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout
    assert '1 passed' in result.stdout


def test_no_program_is_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, 'PATIENCE', 0.5)
    process = start(tmp_path, 'sleep', 60)
    with pytest.raises(pytest.fail.Exception, match='no end in 0.5 s'):
        finish(process)
    assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, 'sleep', 60)
    with pytest.raises(pytest.fail.Exception, match='no checkpoint'):
        helpers.wait_for_note(process, tmp_path)
