"""What bounds a process of its own in which a large library reads a file.

Such a process runs its own file as a script, and this one by its path, so nothing of the package is imported here.
"""

import os
from contextlib import suppress

REFUSED = 3  # exit status of a child that says why on stderr
OVERHEAD = 2**28  # bytes beside those of the file and of what is read
ENVIRONMENT = {
    "HDF5_PLUGIN_PRELOAD": "::",  # no plugins are looked for: they are code
    "OPENBLAS_NUM_THREADS": "1",
}


def bound(more: int) -> None:
    """Let this process take so many bytes more than it has, on systems that can tell and bound it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:
            there = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (there + more, there + more))
