"""Interrupt ``make demo`` in every step, and see that it goes on.

``make interrupt`` runs this on a fresh clone: in each step once Ctrl-C and
once ``kill -9``, both to all that ``make`` has started. The steps that
download and compile find an empty cache until each was interrupted twice; the
user's own serves from then on.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a step prints first, and how many seconds later it is interrupted.
STEPS = {
    '.venv, step 1 of 3': 10,
    '.venv, step 2 of 3': 30,
    '.venv, step 3 of 3': 15,
    '== SegFormer': 0.2,
    '== Testing the untrained': 5,
    '== Training': 60,
    '== Testing the trained': 3,
}
SIGNALS = {'Ctrl-C': signal.SIGINT, 'kill -9': signal.SIGKILL}


def demo(clone, step=None, sent=None, **environment):
    """Run it, perhaps not to the end; return status and output."""
    process = subprocess.Popen(
        ['make', 'demo'],
        cwd=clone,
        env=dict(os.environ, PYTHONUNBUFFERED='1', **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if step and line.startswith(step):
            time.sleep(STEPS[step])
            os.killpg(process.pid, sent)
            step = None
    return process.wait(), ''.join(lines)


def main():
    """Go through all steps, then to the end."""
    # A shell's background jobs, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, 'clone')
        subprocess.run(['git', 'clone', '-q', ROOT, clone], check=True)
        for number, step in enumerate(STEPS):
            cold = dict(XDG_CACHE_HOME=f'{folder}/cache') if number < 2 else {}
            for name, sent in SIGNALS.items():
                start = time.time()
                status, output = demo(clone, step, sent, **cold)
                if step not in output or status == 0:
                    sys.exit(f'{step}: was not interrupted\n{output}')
                if 'Traceback' in output:
                    sys.exit(f'{step}, {name}: a traceback\n{output}')
                spent = time.time() - start
                print(f'{step}: {name} after {spent:.0f} s', flush=True)
        start = time.time()
        status, output = demo(clone)
        if status:
            sys.exit(output)
        print(''.join(output.splitlines(True)[-7:]))
        print(f'went on to the end in {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
