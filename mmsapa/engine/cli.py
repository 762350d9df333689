"""Command-line helpers of the tools."""

import argparse
import gc
import os
import shlex
import signal
import sys
from contextlib import contextmanager

from mmengine.config import DictAction
from torch import distributed

from mmsapa.errors import UserError

# The environment variables that each launcher must set.
LAUNCHERS = dict(
    none=(),
    pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    mpi=(
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'MASTER_ADDR',
    ),
)


class KeyValues(DictAction):
    """An argparse action for KEY=VALUE that reports malformed settings."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Parse the values, as argparse has it."""
        for value in values:
            key, sign, _ = value.partition('=')
            if not (key and sign):
                parser.error(
                    f'{option_string}: expected KEY=VALUE such as '
                    f'train_dataloader.batch_size=2, got {value}'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # brackets that are not closed
            parser.error(f'{option_string}: {error}')


def argument_parser(description):
    """Make a parser of the arguments that training and testing share.

    Args:
        description (str): What the tool does.

    Returns:
        argparse.ArgumentParser: Its arguments are those of
        :func:`mmsapa.engine.runner.load_config`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config',
        help='config file of MMSegmentation, MMDetection or a mattor',
    )
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and results (default: '
        './work_dirs/NAME_OF_THE_CONFIG)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that override those of the config, such as '
        'train_dataloader.batch_size=2 or key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='launcher of the processes of a distributed run',
    )
    # Older launchers pass the rank as an argument, newer ones only set the
    # environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


@contextmanager
def interruptible(message):
    """End a tool with one sentence on a user's error or Ctrl-C.

    A context manager, or a decorator of ``main``. Only tools use it: it is
    the one place in the package that ends a program. Of the processes of a
    distributed run the first one of a machine prints, and once they work on
    different data, the one that fails; all leave their process group.

    Args:
        message (str): What to print after Ctrl-C, such as how to resume.

    Raises:
        SystemExit: With the message of a :class:`UserError`, which is exit
            code 1, or with 130 after Ctrl-C.
    """
    is_first = os.environ.get('RANK', '0') == '0'
    try:
        yield
        # Python ends without waiting for the group's threads, and now and
        # then one of them aborts the process.
        if _in_group():
            gc.collect()  # the runner, whose model keeps the group alive
            distributed.destroy_process_group()
    except UserError as error:
        raise SystemExit(_words(error)) from error
    except KeyboardInterrupt:
        # A second Ctrl-C would interrupt the cleanup with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if is_first:
            print(f'\n{message}', file=sys.stderr, flush=True)
        raise SystemExit(130) from None


def _in_group():
    return distributed.is_available() and distributed.is_initialized()


def _words(error):
    """What a process says of its error, or the exit code 1 if nothing."""
    words = str(error)
    if words.startswith('Caught '):  # by PyTorch, with a worker's traceback
        words = words.split(f'{type(error).__name__}: ')[-1].strip()
    if _in_group():
        return f'Process {distributed.get_rank()}: {words}'
    return words if os.environ.get('LOCAL_RANK', '0') == '0' else 1


def command_line(*words):
    """Return a Python command as one would type it in a shell."""
    return shlex.join(['python', *words])
