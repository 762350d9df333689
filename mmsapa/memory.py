"""Memory that is free."""

import os
from pathlib import Path

CGROUP = Path('/sys/fs/cgroup')  # of this process, in a container


def free_bytes() -> int:
    """Bytes of memory that this process can still have.

    On Linux what the system has available, or less where a container has a
    limit of its own by cgroup v2; elsewhere the whole memory of the machine.
    """
    try:
        text = Path('/proc/meminfo').read_text()
        free = int(text.split('MemAvailable:')[1].split()[0]) * 1024
    except OSError:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    try:
        limit, used, stat = (
            (CGROUP / f'memory.{name}').read_text()
            for name in ('max', 'current', 'stat')
        )
        # Files that were read are counted as used, and make room.
        cached = stat.split('inactive_file')[1].split()[0]
        return min(free, int(limit) - int(used) + int(cached))
    except (IndexError, OSError, ValueError):
        return free  # no such container, or its limit is 'max'
