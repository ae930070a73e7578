"""What of this machine a run uses: its device, precision and workers, and the memory pages that a process keeps.

glibc maps every block above 32 MiB afresh and gives it back when it is freed, so each large tensor is made of pages that the
kernel must first find and clear: on a CPU that can take longer than the arithmetic. `keep_pages` tells glibc to keep them.
"""

import ctypes
import os
import re
from typing import Literal

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_pages(keep: bool = True) -> bool:
    """Let this process keep the memory it frees, for its next tensors, from now on; keep=False goes back to glibc's default.

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


def choose_device(name: str | None) -> torch.device:
    """The named device, or the GPU if there is one, else the CPU. Raises ValueError for a device that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,3})?", name):
        raise ValueError(f"device must be cpu, cuda, cuda:1 … or mps, got {name!r}")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} can't be used here: {str(error).splitlines()[0]}") from error
    return device


def choose_precision(wanted: str, device: torch.device) -> Literal["float32", "bfloat16"]:
    """bfloat16 if asked for, or if "auto" meets a GPU that has it. Never the default on a CPU."""
    if wanted == "auto":
        if device.type != "cuda":
            return "float32"
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def choose_workers(wanted: int | None, device: torch.device, *, among: int = 1) -> int:
    """Processes that read and augment: as wanted, or the cores up to 16, half of them if they also train. among: the training
    processes on this machine, which share its cores."""
    if wanted is not None:
        if wanted < 0:
            raise ValueError(f"`workers` can't be negative, got {wanted}; 0 reads in the main process")
        return wanted
    share = max(1, cores() // among)
    return min(16, max(1, share if device.type == "cuda" else share // 2))


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
