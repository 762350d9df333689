"""Nothing that anybody gives an operator ends the process."""

import subprocess
import sys

import pytest

SECONDS = 900


@pytest.mark.skipif(
    sys.platform != 'linux', reason='memory is limited by what Linux has'
)
def test_whatever_is_given_is_answered_in_words():
    """Every function and operator, see hostile.py; a new one by itself."""
    try:
        result = subprocess.run(
            [sys.executable, '-m', 'tests.ops.hostile'],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        last = error.stdout.decode().splitlines()[-1]
        raise AssertionError(f'hangs: {last}') from None
    lines = result.stdout.splitlines()
    assert result.returncode == 0, f'{lines[-1]}\n{result.stderr[-2000:]}'
    wrong = [line for line in lines if line.startswith('WRONG')]
    assert not wrong, '\n'.join(wrong)
    assert lines[-1].startswith('done')
