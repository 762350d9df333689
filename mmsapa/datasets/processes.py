"""Work on many files in several processes, which may be killed."""

import os
import os.path as osp
import signal
from contextlib import contextmanager
from multiprocessing import Pool

from rich.progress import track

from mmsapa.errors import UserError

# What is added to the name of a file that is not complete.
PARTIAL = '.partial'


def map_in_processes(function, items, description, nproc=None):
    """Call a function with each item, in processes, and show progress.

    Args:
        function (Callable): Of one argument; it can be pickled.
        items (Sequence): Its arguments.
        description (str): Stands before the progress bar.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        list: What it returns, in order.
    """
    progress = dict(description=description, total=len(items))
    nproc = nproc or min(os.cpu_count() or 1, 8)
    if nproc == 1:
        return [*track(map(function, items), **progress)]
    with _pool(nproc) as pool:
        return [*track(pool.imap(function, items, 8), **progress)]


def make_folder(path):
    """Make a folder to write into, and those that it is in.

    Args:
        path (str | Path): The folder; it may exist.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'{path}: expected a folder, got one that cannot be made '
            f'({error}); name another.'
        ) from error


def write_once(write, path):
    """Write a file, unless it exists.

    It gets its name only when it is complete.

    Args:
        write (Callable): Takes the path of the file to write.
        path (str): Its name in the end.

    Returns:
        bool: Whether it was written.
    """
    if osp.exists(path):
        return False
    write(path + PARTIAL)
    os.replace(path + PARTIAL, path)
    return True


@contextmanager
def complete_file(path, mode='w'):
    """Open a file to write, which gets its name only when it is complete.

    Args:
        path (str | Path): Its name in the end; one that exists is replaced.
        mode (str): 'w', for text in UTF-8, or 'wb'. Defaults to 'w'.

    Yields:
        IO: The open file.
    """
    partial = f'{path}{PARTIAL}'
    encoding = None if 'b' in mode else 'utf-8'
    with open(partial, mode, encoding=encoding) as file:
        yield file
    os.replace(partial, path)


def _pool(nproc):
    """Start processes that leave Ctrl-C to this one.

    A terminal sends it to all of them. It is blocked until they ignore it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return Pool(nproc, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
