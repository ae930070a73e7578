"""The CUDA kernels, in Triton: one launch over the window forward and one backward, with the interface of staa.ops.cpu.

A program takes a tile [ROWS, COLS] of a step through all its steps, with the membranes in registers and in float32. The steps
lie in memory as [GROUPS][rows][cols]: where channels are columns a group is a sample, so that a sum over rows is of one sample;
where they are rows there is one group, and a row is a channel of a sample. Sums come as one part per tile, added up by torch:
no atomics, so they are the same every time.

Nothing is contracted to fused multiply-adds (enable_fp_fusion=False) and the order is the reference's: spikes equal those of
the reference on the same device.
"""
# ruff: noqa: N803, RUF005 — Triton writes constants in capitals, and knows no starred tuples
# pyright: reportMissingImports=false, reportCallIssue=false, reportInvalidTypeForm=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from staa.ops.cpu import Geometry, strides
from staa.ops.spike import SURROGATES

BLOCK = 1024  # elements of a tile, at most
COLUMNS = 256  # of a tile at most, where rows are channels: an odd width wastes little
CHANNELS = 32  # of a tile at most, where columns are channels: 128 bytes a row, and a sum takes many rows at once
SEGMENT = 16  # steps at most whose currents and membranes backward holds in registers
HELD, WARPS = 4 * BLOCK, 8  # of a tile of backward: elements times steps at most, and warps
PLAIN = ("steps", "rows", "channels", "sum_size")  # numbers not compiled for


def serves(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.bfloat16, torch.float16)


def lif_forward(
    x: Tensor, v: Tensor | None, coefficients, geometry: Geometry, strict: bool, reset: str, spikes: Tensor, last: Tensor
) -> None:
    """Fills spikes and the last membrane; see staa.ops.cpu.lif_forward."""
    grid, tiling, _ = _tiles(geometry, BLOCK)
    with torch.cuda.device_of(x):
        _forward[grid](
            x, v, *coefficients, *strides(coefficients), spikes, last, geometry[0], **tiling,
            STRICT=strict, SUBTRACT=reset == "subtract", num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip


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
    steps, samples = geometry[:2]
    segments = triton.cdiv(steps, SEGMENT)
    segment = triton.cdiv(steps, segments)
    grid, tiling, parts = _tiles(geometry, min(BLOCK, HELD // triton.next_power_of_2(segment)))
    checkpoints = None if segments == 1 else x.new_empty(segments - 1, x[0].numel(), dtype=torch.float32)
    wanted = len(sums) // 2  # pairs
    by_step, channels = (sums[0].shape[0], sums[0].shape[2]) if wanted else (1, 1)
    shapes = [(parts, by_step, samples, channels)] * 2 + [(parts, samples, channels)] * 2
    partial = [x.new_empty(shape, dtype=torch.float32) for shape in shapes[: 2 * wanted]]
    pointers: list[Tensor | None] = [*partial, *[None] * (4 - len(partial))]
    with torch.cuda.device_of(x):
        _backward[grid](
            x, v, *coefficients, *strides(coefficients), grad_spikes, grad_last, grad_x, grad_v,
            *pointers, samples * channels, checkpoints, steps, segments, **tiling,
            STRICT=strict, SUBTRACT=reset == "subtract", SURROGATE=list(SURROGATES).index(surrogate), KEEP=not detach_reset,
            SEGMENT=segment, MANY=segments > 1, PADDED=steps % segment > 0, SUMS=wanted, BY_STEP=by_step > 1,
            num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    for total, part in zip(sums, partial, strict=True):
        if total.ndim == 1:
            torch.sum(part, (0, 1), out=total)
        else:
            torch.sum(part, (0, 2) if total.shape[1] == 1 else (0,), keepdim=True, out=total[None])


def _tiles(geometry: Geometry, block: int) -> tuple[tuple[int], dict[str, int | bool], int]:
    """The grid, the kernels' arguments that say how it covers a step, and the number of tiles that share a channel's sum."""
    _, samples, a, b, vec = geometry
    groups, rows = (samples, a) if vec else (1, samples * a)
    most = CHANNELS if vec else COLUMNS if rows > 1 else block
    wide = triton.next_power_of_2(min(b, most, block))
    high = triton.next_power_of_2(min(rows, block // wide))
    down, across = triton.cdiv(rows, high), triton.cdiv(b, wide)
    tiling = {"size": groups * rows * b, "rows": rows, "cols": b, "channels": a, "VEC": vec, "ROWS": high, "COLS": wide}
    return (groups * down * across,), tiling, down if vec else across


@triton.jit
def _tile(rows, cols, channels, VEC: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """This program's (offsets within a step, which of them exist, sample, channel, which channels exist, part, offset in it).

    The first two are [ROWS, COLS], those of channels [COLS] where columns are channels, else [ROWS]: as [ROWS, 1] a thread
    would load a coefficient anew for each of its columns.
    """
    across, down = tl.cdiv(cols, COLS), tl.cdiv(rows, ROWS)
    program = tl.program_id(0).to(tl.int64)  # so that every offset below is 64 bits wide
    right, below, group = program % across, program // across % down, program // across // down
    c, r = right * COLS + tl.arange(0, COLS), below * ROWS + tl.arange(0, ROWS)
    at = (group * rows + r[:, None]) * cols + c[None, :]
    inside = (r < rows)[:, None] & (c < cols)[None, :]
    if VEC:
        return at, inside, group, c, c < cols, below, group * cols + c
    else:
        return at, inside, r // channels, r % channels, r < rows, right, r


@triton.jit
def _wide(a, VEC: tl.constexpr):
    """What there is of each channel, beside the elements of a tile."""
    return a[None, :] if VEC else a[:, None]


@triton.jit
def _charge(h, x, decay, gain, scale, shift):
    return decay * h + gain * (x * scale + shift)


@triton.jit
def _spike(u, threshold, STRICT: tl.constexpr):
    d = u - threshold
    z = (d > 0 if STRICT else d >= 0).to(tl.float32)
    return tl.where(d == d, z, d)  # NaN is handed on


@triton.jit
def _reset(u, z, threshold, SUBTRACT: tl.constexpr):
    return u - threshold * z if SUBTRACT else u * (1 - z)


@triton.jit
def _slope(u, SURROGATE: tl.constexpr):
    """S'(u), in the order of SURROGATES; at NaN as the reference."""
    a = tl.abs(u)
    if SURROGATE == 0:
        return tl.where(a >= 0.5, 0.0, 1.0)
    elif SURROGATE == 1:
        return tl.where(a < 1, 1 - a, 0.0)
    elif SURROGATE == 2:
        u *= 3.14159265
        return 1 / (1 + u * u)
    elif SURROGATE == 3:
        e = tl.exp(-4 * a)
        return 4 * e / ((1 + e) * (1 + e))
    else:
        return tl.where(a <= 1e30, 1 / ((1 + 25 * a) * (1 + 25 * a)), 0.0)


@triton.jit(do_not_specialize=PLAIN)
def _forward(
    x, v, decay, gain, threshold, scale, shift, scale_t, scale_n, shift_t, shift_n, spikes, last, steps,
    size: tl.int64, rows, cols, channels, VEC: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    STRICT: tl.constexpr, SUBTRACT: tl.constexpr,
):  # fmt: skip
    at, inside, sample, channel, known, _, _ = _tile(rows, cols, channels, VEC, ROWS, COLS)
    decay, gain = _wide(tl.load(decay + channel, known, 0.0), VEC), _wide(tl.load(gain + channel, known, 0.0), VEC)
    threshold = _wide(tl.load(threshold + channel, known, 0.0), VEC)
    scale += sample * scale_n + channel
    shift += sample * shift_n + channel
    h = tl.zeros([ROWS, COLS], tl.float32)
    if v is not None:
        h = tl.load(v + at, inside, 0.0)
    for _ in range(steps):
        current = tl.load(x + at, inside, 0.0).to(tl.float32)
        a, b = _wide(tl.load(scale, known, 0.0), VEC), _wide(tl.load(shift, known, 0.0), VEC)
        u = _charge(h, current, decay, gain, a, b)
        z = _spike(u, threshold, STRICT)
        tl.store(spikes + at, z.to(spikes.dtype.element_ty), inside)
        h = _reset(u, z, threshold, SUBTRACT)
        x, spikes, scale, shift = x + size, spikes + size, scale + scale_t, shift + shift_t
    tl.store(last + at, h, inside)


@triton.jit(do_not_specialize=PLAIN)
def _backward(
    x, v, decay, gain, threshold, scale, shift, scale_t, scale_n, shift_t, shift_n, grad_spikes, grad_last, grad_x, grad_v,
    sum_x, sum_u, sum_h, sum_threshold, sum_size, checkpoints, steps, segments,
    size: tl.int64, rows, cols, channels, VEC: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    STRICT: tl.constexpr, SUBTRACT: tl.constexpr,
    SURROGATE: tl.constexpr, KEEP: tl.constexpr, SEGMENT: tl.constexpr, MANY: tl.constexpr, PADDED: tl.constexpr,
    SUMS: tl.constexpr, BY_STEP: tl.constexpr,
):  # fmt: skip
    """Segment by segment from the last, each charged again from the membrane it began with.

    Those come from a pass over all segments but the last, where there are MANY. PADDED: the last has steps past the end.
    """
    AXIS: tl.constexpr = 0 if VEC else 1
    at, inside, sample, channel, known, part, sum_at = _tile(rows, cols, channels, VEC, ROWS, COLS)
    decay, gain = _wide(tl.load(decay + channel, known, 0.0), VEC), _wide(tl.load(gain + channel, known, 0.0), VEC)
    threshold = _wide(tl.load(threshold + channel, known, 0.0), VEC)
    scale += sample * scale_n + channel
    shift += sample * shift_n + channel
    h = tl.zeros([ROWS, COLS], tl.float32)
    if v is not None:
        h = tl.load(v + at, inside, 0.0)
    if MANY:
        for k in range(segments - 1):
            tl.store(checkpoints + k * size + at, h, inside)
            for i in range(SEGMENT):
                t = k * SEGMENT + i
                current = tl.load(x + t * size + at, inside, 0.0).to(tl.float32)
                a, b = tl.load(scale + t * scale_t, known, 0.0), tl.load(shift + t * shift_t, known, 0.0)
                u = _charge(h, current, decay, gain, _wide(a, VEC), _wide(b, VEC))
                h = _reset(u, _spike(u, threshold, STRICT), threshold, SUBTRACT)
        tl.debug_barrier()  # what other threads stored is read below
    g = tl.zeros([ROWS, COLS], tl.float32)  # ∂h
    if grad_last is not None:
        g = tl.load(grad_last + at, inside, 0.0)
    of_x, of_u = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    of_h, of_threshold = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    for back in range(segments):
        k = segments - 1 - back
        currents, membranes, before = (), (), h
        for i in tl.static_range(SEGMENT):
            t = k * SEGMENT + i
            exists = tl.full([1], t, tl.int32) < steps if PADDED else True
            current = tl.load(x + t * size + at, inside & exists, 0.0).to(tl.float32)
            a = tl.load(scale + t * scale_t, known & exists, 0.0)
            b = tl.load(shift + t * shift_t, known & exists, 0.0)
            u = _charge(h, current, decay, gain, _wide(a, VEC), _wide(b, VEC))
            h = _reset(u, _spike(u, threshold, STRICT), threshold, SUBTRACT)
            currents, membranes = currents + (current,), membranes + (u,)
        for i in tl.static_range(SEGMENT - 1, -1, -1):
            t = k * SEGMENT + i
            exists = tl.full([1], t, tl.int32) < steps if PADDED else True
            u = membranes[i]
            z = _spike(u, threshold, STRICT)
            gs = tl.load(grad_spikes + t * size + at, inside & exists, 0.0).to(tl.float32)
            through = g * (threshold if SUBTRACT else u) if KEEP else 0.0
            slope = _slope(u - threshold, SURROGATE)
            gd = (gs - through) * slope
            if SURROGATE != 2 and SURROGATE != 3:  # beyond its bounds a bounded one stops any gradient, NaN too
                gd = tl.where(slope == 0, 0.0, gd)
            gu = (g if SUBTRACT else g * (1 - z)) + gd
            if PADDED:
                gd, gu, z = tl.where(exists, gd, 0.0), tl.where(exists, gu, 0.0), tl.where(exists, z, 0.0)
            a = _wide(tl.load(scale + t * scale_t, known & exists, 0.0), VEC)
            tl.store(grad_x + t * size + at, (gu * gain * a).to(grad_x.dtype.element_ty), inside & exists)
            if SUMS > 0:
                if BY_STEP:
                    to = (part * steps + t) * sum_size + sum_at
                    tl.store(sum_x + to, tl.sum(gu * currents[i], AXIS), known & exists)
                    tl.store(sum_u + to, tl.sum(gu, AXIS), known & exists)
                else:
                    of_x += gu * currents[i]
                    of_u += gu
            if SUMS > 1:
                h = before
                if i > 0:
                    h = _reset(membranes[i - 1], _spike(membranes[i - 1], threshold, STRICT), threshold, SUBTRACT)
                of_h += tl.where(exists, gu * h, 0.0) if PADDED else gu * h
                of_threshold -= gd + g * z if SUBTRACT else gd
            g = tl.where(exists, decay * gu, g) if PADDED else decay * gu
        if MANY:
            h = tl.load(checkpoints + (k - 1) * size + at, inside & (tl.full([1], k, tl.int32) > 0), 0.0)
    if grad_v is not None:
        tl.store(grad_v + at, g, inside)
    to = part * sum_size + sum_at
    if SUMS > 0 and not BY_STEP:
        tl.store(sum_x + to, tl.sum(of_x, AXIS), known)
        tl.store(sum_u + to, tl.sum(of_u, AXIS), known)
    if SUMS > 1:
        tl.store(sum_h + to, tl.sum(of_h, AXIS), known)
        tl.store(sum_threshold + to, tl.sum(of_threshold, AXIS), known)
