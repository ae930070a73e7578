"""Memory pages that a process keeps.

glibc maps every block above 32 MiB afresh and gives it back when it is freed, so each large tensor is made of pages that the
kernel must first find and clear: on a CPU that can take longer than the arithmetic. `keep_pages` tells glibc to keep them.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_pages(keep: bool = True) -> bool:
    """Let this process keep the memory it frees, for its next tensors, from now on; keep=False goes back to the usual.

    The process then never shrinks below its peak. It is a setting of glibc's malloc (mallopt(3)), for the whole process,
    so a program decides on it, not an import: the `staa` command does. Returns whether there is glibc to be told: False on
    other systems, where nothing changes. On a GPU it matters little, since torch keeps the device's memory itself.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return False
    blocks, threshold = (0, -1) if keep else (65536, 128 * 1024)  # glibc's own
    done = bool(libc.mallopt(M_MMAP_MAX, blocks) and libc.mallopt(M_TRIM_THRESHOLD, threshold))
    if not keep:
        libc.malloc_trim(0)
    return done
