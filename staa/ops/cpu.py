"""The CPU kernels: _kernels.c, built when the package is, called through its plain C interface.

Without the library (no C compiler when the package was built from source) the operations take their reference paths; WHY_NOT
says why, and `staa doctor` shows it.
"""

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from staa.ops.spike import SURROGATES

VERSION = 3  # of the C interface
TASKS = 64  # a window is cut into about so many pieces, whatever the number of threads: sums don't depend on it
CACHES = 1 << 21  # bytes of a window whose steps, far apart in memory, are written past the caches
LARGE = 1 << 24  # and of one that is written from end to end
ALONE = 1 << 15  # elements below which one thread is faster

Geometry = tuple[int, int, int, int, bool]


class _Lif(ctypes.Structure):
    """struct Lif of _kernels.c."""

    _fields_ = [
        ("parallel", ctypes.c_void_p),
        *(
            (name, ctypes.c_int64)
            for name in ("threads", "T", "N", "A", "B", "vec", "bf16", "strict", "reset", "surrogate", "keep")
        ),
        *((name, ctypes.c_void_p) for name in ("x", "v", "scale", "shift")),
        *((name, ctypes.c_int64) for name in ("scale_t", "scale_n", "shift_t", "shift_n")),
        *((name, ctypes.c_void_p) for name in ("decay", "gain", "threshold", "s", "h", "gs", "gh", "gx", "gv")),
        *((name, ctypes.c_int64) for name in ("slabs", "sum_t", "sum_n")),
        *((name, ctypes.c_void_p) for name in ("sum_gu_x", "sum_gu", "sum_gu_h", "sum_gthr")),
        *((name, ctypes.c_int64) for name in ("past_caches", "failed", "next", "care", "careful")),
    ]


class _Frames(ctypes.Structure):
    """struct Frames of _kernels.c."""

    _fields_ = [
        ("parallel", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("threads", "F", "A", "B", "vec", "bf16", "past_caches")),
        *((name, ctypes.c_void_p) for name in ("x", "up", "out", "mean", "m2", "weight", "bias")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("scale", "shift", "all_mean", "variance")),
        *((name, ctypes.c_void_p) for name in ("grad_scale", "grad_shift", "grad_mean", "grad_weight", "key")),
        ("key_f", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weights", "context", "alpha", "beta")),
        ("alpha_f", ctypes.c_int64),
        ("grad_key", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("failed", "next")),
    ]


class _Bits(ctypes.Structure):
    """struct Bits of _kernels.c."""

    _fields_ = [
        ("parallel", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("threads", "count", "bf16")),
        ("x", ctypes.c_void_p),
        ("bits", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("other", "next")),
    ]


def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why."""
    paths = [p for p in (Path(__file__).with_name("_kernels" + suffix) for suffix in EXTENSION_SUFFIXES) if p.exists()]
    if not paths:
        return None, "it was not built: no C compiler was found when the package was installed"
    try:
        library = ctypes.CDLL(str(paths[0]))
        library.staa_version.restype = ctypes.c_int64
        version = library.staa_version()
    except (OSError, AttributeError) as error:
        return None, f"{paths[0]} can't be loaded: {error}"
    if version != VERSION:
        return None, f"{paths[0]} is of another version of staa: install the package again"
    return library, ""


def _parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP that torch has loaded: its threads, not a second pool of our own."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None


LIBRARY, WHY_NOT = _load()
PARALLEL = _parallel()


def serves(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.bfloat16) and LIBRARY is not None


def lif_forward(
    x: Tensor, v: Tensor | None, coefficients, geometry: Geometry, strict: bool, reset: str, spikes: Tensor, last: Tensor
) -> None:
    """Fills spikes and the last membrane; the arguments are those of torch.ops.staa.lif, in one memory order."""
    call = _call(x, v, coefficients, geometry, strict, reset)
    call.s, call.h = spikes.data_ptr(), last.data_ptr()
    _run("staa_lif_forward", call)


def lif_backward(
    x: Tensor,
    v: Tensor | None,
    coefficients,
    geometry: Geometry,
    strict: bool,
    reset: str,
    surrogate: str,
    detach_reset: bool,
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    grad_x: Tensor,
    grad_v: Tensor | None,
    sums: list[Tensor],
) -> None:
    """Fills grad_x, grad_v and the sums that are there; see torch.ops.staa.lif_backward."""
    call = _call(x, v, coefficients, geometry, strict, reset)
    call.surrogate = list(SURROGATES).index(surrogate)
    call.keep = not detach_reset
    call.gs, call.gx = grad_spikes.data_ptr(), grad_x.data_ptr()
    call.gh = None if grad_last is None else grad_last.data_ptr()
    call.gv = None if grad_v is None else grad_v.data_ptr()
    if sums:
        by_step, by_sample, channels = sums[0].shape
        call.sum_t, call.sum_n = by_step > 1, by_sample > 1
        most = x.numel() // (16 * by_step * channels * call.N)  # keep the partial sums small beside the window
        call.slabs = max(min(call.slabs, most), min(call.slabs, 2))
        for name, total in zip(("sum_gu_x", "sum_gu", "sum_gu_h", "sum_gthr"), sums, strict=False):
            setattr(call, name, total.data_ptr())
    _run("staa_lif_backward", call)


def _call(x: Tensor, v: Tensor | None, coefficients, geometry: Geometry, strict: bool, reset: str) -> _Lif:
    decay, gain, threshold, scale, shift = coefficients
    _, samples, _, _, channels_last = geometry
    call = _Lif(parallel=PARALLEL, threads=_threads(x), vec=channels_last)
    call.T, call.N, call.A, call.B = geometry[:4]
    call.bf16, call.strict, call.reset = x.dtype == torch.bfloat16, strict, reset == "subtract"
    call.x, call.v = x.data_ptr(), None if v is None else v.data_ptr()
    call.scale, call.shift = scale.data_ptr(), shift.data_ptr()
    call.scale_t, call.scale_n, call.shift_t, call.shift_n = strides(coefficients)
    call.decay, call.gain, call.threshold = decay.data_ptr(), gain.data_ptr(), threshold.data_ptr()
    call.slabs, call.past_caches = -(-TASKS // samples), x.nbytes > CACHES
    return call


def strides(coefficients) -> tuple[int, ...]:
    """Of scale and shift over steps and samples; 0 if they are constant."""
    return tuple(p.stride(i) if p.shape[i] > 1 else 0 for p in coefficients[3:] for i in (0, 1))


def of_frames(function: str, x: Tensor, channels_last: bool, numbers: dict[str, float], **tensors: Tensor | None) -> None:
    """Run a kernel over the frames x[t, n]; numbers and tensors by their names in struct Frames, if they are in it."""
    space = x.shape[3] * x.shape[4]
    call = _Frames(parallel=PARALLEL, threads=_threads(x), F=x.shape[0] * x.shape[1], vec=channels_last, **numbers)
    call.A, call.B = (space, x.shape[2]) if channels_last else (x.shape[2], space)
    call.x, call.bf16, call.past_caches = x.data_ptr(), x.dtype == torch.bfloat16, x.nbytes > LARGE
    for name, tensor in tensors.items():
        setattr(call, name, None if tensor is None else tensor.data_ptr())
    _run(function, call)


def pack(x: Tensor) -> Tensor | None:
    """The bits, int32, of a dense x of zeros and ones in memory order; None if x holds anything else."""
    bits = torch.empty(-(-x.numel() // 32), dtype=torch.int32)
    return None if _bits("staa_pack", x, bits).other else bits


def unpack(bits: Tensor, x: Tensor) -> None:
    """Fill a dense x with what was packed."""
    _bits("staa_unpack", x, bits)


def _bits(function: str, x: Tensor, bits: Tensor) -> _Bits:
    call = _Bits(parallel=PARALLEL, threads=_threads(x), count=x.numel(), bf16=x.dtype == torch.bfloat16)
    call.x, call.bits = x.data_ptr(), bits.data_ptr()
    _run(function, call)
    return call


def _threads(x: Tensor) -> int:
    return 1 if x.numel() < ALONE else torch.get_num_threads()


def _run(function: str, call: _Lif | _Frames | _Bits) -> None:
    getattr(LIBRARY, function)(ctypes.byref(call))
    if getattr(call, "failed", 0):
        raise MemoryError("a CPU kernel found no memory for its scratch space")
