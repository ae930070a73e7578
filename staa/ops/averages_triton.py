"""The averages of staa.ops.averages on CUDA, in Triton, with the interface of staa.ops.cpu.of_frames.

A frame x[t, n] lies in memory as [rows][cols]: its channels are columns if it is channels-last (VEC), else rows. A program
takes a part of a frame's positions, P at a time. Sums over positions stay apart in P places of its registers and meet at the
end, so that the loop needs no exchange between threads. Parts are merged by a second, small launch. There are no atomics, and
the parts follow from shapes alone: every sum is the same every time.
"""
# ruff: noqa: N803 — Triton writes constants in capitals
# pyright: reportMissingImports=false, reportCallIssue=false, reportInvalidTypeForm=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096  # elements of x that a program holds at once, at most, but for more channels than that
COLUMNS = 256  # channels or positions of a tile at most, where it need not hold all channels
PROGRAMS = 1024  # frames are shared out until there are about so many programs
MERGED = 256  # frames whose sums are merged at once
PLAIN = ("rows", "frames", "parts", "tiles", "share", "key_f", "eps")  # numbers not compiled for


def of_frames(function: str, x: Tensor, channels_last: bool, numbers: dict[str, float], **tensors: Tensor | None) -> None:
    """Run a kernel over the frames of x; see staa.ops.cpu.of_frames."""
    with torch.cuda.device_of(x):
        _LAUNCHES[function](x, channels_last, **numbers, **tensors)


def _batch_norm(x, vec, *, eps, weight, bias, scale, shift, mean, all_mean, variance) -> None:
    count, channels, geometry = _geometry(x, vec)
    tile = _tile(x, vec)
    parts, tiles = _shares(x, tile, triton.cdiv(channels, tile["C"]))
    m2 = x.new_empty((count * parts, channels), dtype=torch.float32)
    means = mean if parts == 1 else torch.empty_like(m2)
    grid = (count * parts * triton.cdiv(channels, tile["C"]),)
    _moments[grid](x, means, m2, parts, tiles, *geometry, **tile, num_warps=8)
    _merge_moments[(triton.cdiv(channels, 8),)](
        means, m2, weight, bias, mean, scale, shift, all_mean, variance, eps, count, parts, tiles * tile["P"], *geometry,
        VEC=vec, F=min(MERGED, triton.next_power_of_2(count)), C=8, num_warps=8,
    )  # fmt: skip


def _batch_norm_backward(
    x, vec, *, eps, up, out, grad_scale, grad_shift, grad_mean, scale, all_mean, variance, grad_weight
) -> None:
    count, channels, geometry = _geometry(x, vec)
    tile = _tile(x, vec)
    grid = (count * triton.cdiv(_space(x), tile["P"]) * triton.cdiv(channels, tile["C"]),)
    _add_affine[grid](
        x, up, out, grad_scale, grad_shift, grad_mean, scale, all_mean, variance, grad_weight, eps, count, *geometry,
        **tile, num_warps=8,
    )  # fmt: skip


def _context(x, vec, *, key_f, key, context, mean, weights) -> None:
    count, channels, geometry = _geometry(x, vec)
    tile = _whole(x, vec)
    parts, tiles = _shares(x, tile)
    pooled, total = (x.new_empty((count * parts, channels), dtype=torch.float32) for _ in range(2))
    most, norm = (x.new_empty((count, parts), dtype=torch.float32) for _ in range(2))
    _pool[(count * parts,)](x, key, key_f, weights, most, norm, pooled, total, parts, tiles, *geometry, **tile, num_warps=8)
    _merge_pools[(count,)](
        weights, most, norm, pooled, total, context, mean, parts, *geometry,
        VEC=vec, PARTS=triton.next_power_of_2(parts), P=1024, C=min(1024, tile["C"]), num_warps=4,
    )  # fmt: skip


def _context_backward(x, vec, *, key_f, alpha_f, up, out, key, weights, context, pooled, alpha, grad_key) -> None:
    del alpha_f  # one for each frame
    count, channels, geometry = _geometry(x, vec)
    tile = _whole(x, vec)
    parts, tiles = _shares(x, tile)
    of_key = grad_key if parts == 1 else x.new_empty((*x.shape[:2], parts, channels), dtype=torch.float32)
    _unpool[(count * parts,)](
        x, up, out, key, key_f, weights, context, pooled, alpha, of_key, parts, tiles, *geometry, **tile, num_warps=8
    )
    if parts > 1:
        torch.sum(of_key, 2, out=grad_key)


_LAUNCHES = {
    "staa_batch_norm": _batch_norm,
    "staa_batch_norm_backward": _batch_norm_backward,
    "staa_context": _context,
    "staa_context_backward": _context_backward,
}


def _space(x: Tensor) -> int:
    return x.shape[3] * x.shape[4]


def _geometry(x: Tensor, vec: bool) -> tuple[int, int, tuple[int, int]]:
    """The number of frames and of channels, and (rows, cols)."""
    channels, space = x.shape[2], _space(x)
    return x.shape[0] * x.shape[1], channels, (space, channels) if vec else (channels, space)


def _tile(x: Tensor, vec: bool) -> dict[str, int | bool]:
    """P positions of C channels, for what needs one channel at a time."""
    p, c, block = triton.next_power_of_2(_space(x)), triton.next_power_of_2(x.shape[2]), BLOCK // 2
    if vec:
        c = min(c, max(block // p, 64), COLUMNS)
        return {"VEC": vec, "P": min(p, max(block // c, 1)), "C": c}
    p = min(p, COLUMNS)
    return {"VEC": vec, "P": p, "C": min(c, max(block // p, 1))}


def _whole(x: Tensor, vec: bool) -> dict[str, int | bool]:
    """P positions of all channels."""
    c = triton.next_power_of_2(x.shape[2])
    return {"VEC": vec, "P": min(triton.next_power_of_2(_space(x)), max(BLOCK // c, 1)), "C": c}


def _shares(x: Tensor, tile: dict[str, int | bool], across: int = 1) -> tuple[int, int]:
    """Into how many parts a frame's positions are shared, and the tiles of a part: at least four if there are several parts."""
    tiles, frames = triton.cdiv(_space(x), tile["P"]), x.shape[0] * x.shape[1] * across
    of_part = triton.cdiv(tiles, max(1, min(PROGRAMS // frames, tiles // 4)))
    return triton.cdiv(tiles, of_part), of_part


@triton.jit
def _sizes(rows, cols, VEC: tl.constexpr):
    """(positions, channels)."""
    if VEC:
        return rows, cols
    else:
        return cols, rows


@triton.jit
def _tile_at(first, block, rows, cols, VEC: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """(positions [P], channels [C], offsets in a frame, which of those exist): the last two are [P, C] if VEC, else [C, P]."""
    p, c = first + tl.arange(0, P), block * C + tl.arange(0, C)
    if VEC:
        return p, c, p[:, None] * cols + c[None, :], (p < rows)[:, None] & (c < cols)[None, :]
    else:
        return p, c, c[:, None] * cols + p[None, :], (c < rows)[:, None] & (p < cols)[None, :]


@triton.jit
def _of_channels(a, VEC: tl.constexpr):
    return a[None, :] if VEC else a[:, None]


@triton.jit
def _of_space(a, VEC: tl.constexpr):
    return a[:, None] if VEC else a[None, :]


@triton.jit(do_not_specialize=PLAIN)
def _moments(x, means, m2, parts, tiles, rows, cols, VEC: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """Of each channel in each part of a frame: the mean, and Σ (x − mean)², by Welford's recurrence in each of P places."""
    OVER_SPACE: tl.constexpr = 0 if VEC else 1
    space, channels = _sizes(rows, cols, VEC)
    blocks = tl.cdiv(channels, C)
    program = tl.program_id(0).to(tl.int64)  # so that every offset below is 64 bits wide
    piece, block = program // blocks, program % blocks
    x += piece // parts * rows * cols
    begin = piece % parts * tiles * P
    p, c, at, inside = _tile_at(begin, block, rows, cols, VEC, P, C)
    mean, seen = tl.zeros_like(at).to(tl.float32), tl.zeros_like(p).to(tl.float32)
    spread = mean
    for i in range(tiles):
        p, c, at, inside = _tile_at(begin + i * P, block, rows, cols, VEC, P, C)
        seen += (p < space).to(tl.float32)
        off = tl.load(x + at, inside, 0.0).to(tl.float32) - mean
        step = tl.where(inside, off * _of_space(1 / tl.maximum(seen, 1.0), VEC), 0.0)
        mean += step
        spread += tl.where(inside, off * (off - step), 0.0)
    number = _of_space(seen, VEC)
    part_mean = tl.sum(mean * (number / tl.sum(seen, 0)), OVER_SPACE)
    off = mean - _of_channels(part_mean, VEC)
    to = piece * channels + c
    tl.store(means + to, part_mean, c < channels)
    tl.store(m2 + to, tl.sum(spread + number * off * off, OVER_SPACE), c < channels)


@triton.jit(do_not_specialize=PLAIN)
def _merge_moments(
    means, m2, weight, bias, mean, scale, shift, all_mean, variance, eps, frames, parts, share, rows, cols,
    VEC: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Mean and variance of C channels over all frames, and what they make of weight and bias."""
    space, channels = _sizes(rows, cols, VEC)
    c = tl.program_id(0).to(tl.int64) * C + tl.arange(0, C)
    known = c < channels
    total = tl.zeros([F, C], tl.float32)
    for first in range(0, frames, F):
        f = first + tl.arange(0, F)[:, None]
        inside = (f < frames) & known[None, :]
        of_frame = tl.zeros([F, C], tl.float32)
        for part in range(parts):
            share_of_frame = tl.minimum(share, space - part * share) / space
            of_frame += share_of_frame * tl.load(means + (f * parts + part) * channels + c[None, :], inside, 0.0)
        if parts > 1:  # else it is there
            tl.store(mean + f * channels + c[None, :], of_frame, inside)
        total += of_frame
    centre = tl.sum(total, 0) / frames
    spread = tl.zeros([F, C], tl.float32)
    for first in range(0, frames, F):
        f = first + tl.arange(0, F)[:, None]
        inside = (f < frames) & known[None, :]
        for part in range(parts):
            at = (f * parts + part) * channels + c[None, :]
            off = tl.load(means + at, inside, 0.0) - centre[None, :]
            here = tl.load(m2 + at, inside, 0.0) + tl.minimum(share, space - part * share) * off * off
            spread += tl.where(inside, here, 0.0)
    var = tl.sum(spread, 0) / frames / space
    a = 1 / tl.sqrt(var + eps)
    if weight is not None:
        a *= tl.load(weight + c, known, 0.0)
    b = -centre * a
    if bias is not None:
        b += tl.load(bias + c, known, 0.0)
    tl.store(scale + c, a, known)
    tl.store(shift + c, b, known)
    tl.store(all_mean + c, centre, known)
    tl.store(variance + c, var, known)


@triton.jit(do_not_specialize=PLAIN)
def _add_affine(
    x, up, out, grad_scale, grad_shift, grad_mean, scale, all_mean, variance, grad_weight, eps, frames, rows, cols,
    VEC: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """out = up + alpha + beta · (x − mean): see _batch_norm_backward in fold.py."""
    space, channels = _sizes(rows, cols, VEC)
    down, blocks = tl.cdiv(space, P), tl.cdiv(channels, C)
    program = tl.program_id(0).to(tl.int64)
    frame, tile, block = program // blocks // down, program // blocks % down, program % blocks
    _, c, at, inside = _tile_at(tile * P, block, rows, cols, VEC, P, C)
    known = c < channels
    of_scale, of_shift = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
    if grad_scale is not None:
        of_scale = tl.load(grad_scale + c, known, 0.0)
    if grad_shift is not None:
        of_shift = tl.load(grad_shift + c, known, 0.0)
    mean, a = tl.load(all_mean + c, known, 0.0), tl.load(scale + c, known, 0.0)
    inverse = 1 / tl.sqrt(tl.load(variance + c, known, 1.0) + eps)
    of_weight = (of_scale - mean * of_shift) * inverse  # the shift goes by the scale too
    beta, alpha = -of_weight * a * inverse / frames / space, -a * of_shift / frames / space
    if grad_mean is not None:
        alpha += tl.load(grad_mean + frame * channels + c, known, 0.0) / space
    at += frame * rows * cols
    off = tl.load(x + at, inside, 0.0).to(tl.float32) - _of_channels(mean, VEC)
    grad = _of_channels(alpha, VEC) + _of_channels(beta, VEC) * off
    if up is not None:
        grad += tl.load(up + at, inside, 0.0).to(tl.float32)
    tl.store(out + at, grad.to(out.dtype.element_ty), inside)
    tl.store(grad_weight + c, of_weight, known & (frame == 0) & (tile == 0))


@triton.jit(do_not_specialize=PLAIN)
def _pool(
    x, key, key_f, logits, most, norm, pooled, total, parts, tiles, rows, cols,
    VEC: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Of a part of a frame, in one read: logits k = Σ_c key · x, the largest, Σ x, and Σ w and Σ w · x for w = e^(k − largest).

    Each of P places goes by its own largest so far.
    """
    OVER_SPACE: tl.constexpr = 0 if VEC else 1
    OVER_CHANNELS: tl.constexpr = 1 if VEC else 0
    space, channels = _sizes(rows, cols, VEC)
    piece = tl.program_id(0).to(tl.int64)
    frame = piece // parts
    x += frame * rows * cols
    begin = piece % parts * tiles * P
    p, c, at, inside = _tile_at(begin, 0, rows, cols, VEC, P, C)
    by = _of_channels(tl.load(key + frame * key_f + c, c < channels, 0.0), VEC)
    of_x = tl.zeros_like(at).to(tl.float32)
    weighted = of_x
    top, weights = tl.zeros([P], tl.float32) - float("inf"), tl.zeros([P], tl.float32)
    for i in range(tiles):
        p, c, at, inside = _tile_at(begin + i * P, 0, rows, cols, VEC, P, C)
        here = tl.load(x + at, inside, 0.0).to(tl.float32)
        k = tl.sum(by * here, OVER_CHANNELS)
        tl.store(logits + frame * space + p, k, p < space)
        k = tl.where(p < space, k, -float("inf"))
        larger = tl.maximum(top, k)
        finite = tl.where(larger == -float("inf"), 0.0, larger)
        before, weight = tl.exp(top - finite), tl.exp(k - finite)
        weights = weights * before + weight
        weighted = weighted * _of_space(before, VEC) + _of_space(weight, VEC) * here
        of_x += here
        top = larger
    largest = tl.max(top, 0)
    factor = tl.exp(top - tl.where(largest == -float("inf"), 0.0, largest))
    tl.store(most + piece, largest)
    tl.store(norm + piece, tl.sum(weights * factor, 0))
    to = piece * channels + c
    tl.store(pooled + to, tl.sum(weighted * _of_space(factor, VEC), OVER_SPACE), c < channels)
    tl.store(total + to, tl.sum(of_x, OVER_SPACE), c < channels)


@triton.jit(do_not_specialize=PLAIN)
def _merge_pools(
    weights, most, norm, pooled, total, context, mean, parts, rows, cols,
    VEC: tl.constexpr, PARTS: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The parts of a frame together: context, mean, and in the place of the logits the weights."""
    space, channels = _sizes(rows, cols, VEC)
    frame = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, PARTS)
    tops = tl.load(most + frame * parts + j, j < parts, -float("inf"))
    largest = tl.max(tops, 0)
    all_weights = tl.sum(tl.load(norm + frame * parts + j, j < parts, 0.0) * tl.exp(tops - largest), 0)
    for first in range(0, channels, C):
        c = first + tl.arange(0, C)
        known = c < channels
        weighted, of_x = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
        for part in range(parts):
            piece = frame * parts + part
            factor = tl.exp(tl.load(most + piece) - largest)
            weighted += factor * tl.load(pooled + piece * channels + c, known, 0.0)
            of_x += tl.load(total + piece * channels + c, known, 0.0)
        tl.store(context + frame * channels + c, weighted / all_weights, known)
        tl.store(mean + frame * channels + c, of_x / space, known)
    weights += frame * space
    for first in range(0, space, P):
        p = first + tl.arange(0, P)
        tl.store(weights + p, tl.exp(tl.load(weights + p, p < space, 0.0) - largest) / all_weights, p < space)


@triton.jit(do_not_specialize=PLAIN)
def _unpool(
    x, up, out, key, key_f, weights, grad_context, pooled, alpha, grad_key, parts, tiles, rows, cols,
    VEC: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """out = up + weights · ∂context + ∂k · key + alpha, where ∂k = weights · Σ_c ∂context · (x − context);  ∂key = Σ ∂k · x."""
    OVER_SPACE: tl.constexpr = 0 if VEC else 1
    OVER_CHANNELS: tl.constexpr = 1 if VEC else 0
    space, channels = _sizes(rows, cols, VEC)
    piece = tl.program_id(0).to(tl.int64)
    frame = piece // parts
    begin = piece % parts * tiles * P
    p, c, at, inside = _tile_at(begin, 0, rows, cols, VEC, P, C)
    known, of = c < channels, frame * channels + c
    by = _of_channels(tl.load(key + frame * key_f + c, known, 0.0), VEC)
    of_context = _of_channels(tl.load(grad_context + of, known, 0.0), VEC)
    context = _of_channels(tl.load(pooled + of, known, 0.0), VEC)
    of_mean = _of_channels(tl.load(alpha + of, known, 0.0), VEC)
    of_key = tl.zeros_like(at).to(tl.float32)
    for i in range(tiles):
        p, c, at, inside = _tile_at(begin + i * P, 0, rows, cols, VEC, P, C)
        at += frame * rows * cols
        here = tl.load(x + at, inside, 0.0).to(tl.float32)
        weight = tl.load(weights + frame * space + p, p < space, 0.0)
        of_k = _of_space(weight * tl.sum(of_context * (here - context), OVER_CHANNELS), VEC)
        of_key += of_k * here
        grad = _of_space(weight, VEC) * of_context + of_k * by + of_mean
        if up is not None:
            grad += tl.load(up + at, inside, 0.0).to(tl.float32)
        tl.store(out + at, grad.to(out.dtype.element_ty), inside)
    tl.store(grad_key + piece * channels + c, tl.sum(of_key, OVER_SPACE), known)
