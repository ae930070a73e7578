"""ECF, the code that packs a chunk of events in Metavision's HDF5 files, unpacked with every length checked.

A chunk: uint32 n << 2 | how x, y and p are packed; uint64 t₀; times; then the other columns. All is little-endian. It runs as a
part of `hdf`, in a process of its own, so it imports nothing of the package.

Source: https://github.com/prophesee-ai/hdf5_ecf
"""

import numpy as np

MOST = 65535  # events of a chunk


def unpacked(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """t, x, y, p of a chunk. Raises ValueError for what is no such chunk."""
    if len(data) < 12:
        raise ValueError("a chunk of it is no ECF: it is too short")
    head, start = np.frombuffer(data, "<u4", 1).item(), np.frombuffer(data, "<u8", 1, 4).item()
    n, packing = head >> 2, head & 3
    if not 0 < n <= MOST or start >= 1 << 62:
        raise ValueError(f"a chunk of it is no ECF: {n} events from {start} µs on")
    t, at = _times(data, 12, n)
    if packing & 2:
        (y, x, p), _ = _packed(data, at, n, 24, lambda v: (v >> 12 & 0x7FF, v >> 1 & 0x7FF, v & 1))
        return start + t, x, y, p
    y, at = _repeated(_codes(data, at, "<u2"), n, 31, 5, at)
    if packing & 1:
        (x, p), _ = _packed(data, at, n, 12, lambda v: (v >> 1, v & 1))
        return start + t, x, y, p
    x, at = _masked(_codes(data, at, "<u2"), n, at)
    p, _ = _repeated(_codes(data, at, "u1"), n, 127, 7, at)
    return start + t, x, y, p


def _codes(data: bytes, at: int, kind: str) -> np.ndarray:
    return np.frombuffer(data, kind, (len(data) - at) // np.dtype(kind).itemsize, at)


def _runs(codes: np.ndarray, long: np.ndarray, mask: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """Which codes begin a run, and how long each run is. Of those in `long` the length is in the next `wide` codes."""
    begins, free, found = np.ones(len(codes), bool), 0, []
    for k in np.flatnonzero(long).tolist():
        if k >= free:
            found.append(k)
            free = k + 1 + wide
    counts, at = (codes & mask).astype(np.int64), np.array(found, np.int64)
    for i in range(1, wide + 1):
        after = at + i
        begins[after[after < len(codes)]] = False
    at = at[at + wide < len(codes)]
    counts[at] = sum(codes[at + 1 + i].astype(np.int64) << 8 * i for i in range(wide))
    return np.flatnonzero(begins), counts


def _until(counts: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """The lengths of the runs that make n events, the last one cut, and how many runs these are."""
    ends = np.cumsum(counts)
    last = int(np.searchsorted(ends, n))
    if last == len(ends):
        raise ValueError("a chunk of it is no ECF: it ends too early")
    counts = counts[: last + 1].copy()
    counts[last] -= int(ends[last]) - n
    return counts, last + 1


def _times(data: bytes, at: int, n: int) -> tuple[np.ndarray, int]:
    """A byte has 4 bits that time goes on, and 4 bits of events at that time; 15: it is in the next 2 bytes. Bytes 0xF0 … have
    4 bits of a longer step each, the lowest first."""
    codes = _codes(data, at, "u1")
    is_step = codes >= 0xF0
    begins, counts = _runs(codes, (codes & 15 == 15) & ~is_step, 15, 2)
    code, counts, is_step = codes[begins], counts[begins], is_step[begins]
    counts[is_step] = 0
    counts, runs = _until(counts, n)
    code, is_step = code[:runs], is_step[:runs]
    i = np.arange(runs)
    place = i - np.maximum.accumulate(np.where(is_step, -1, i))  # from 1 on
    if place.max() > 15:
        raise ValueError("a chunk of it is no ECF: a step of time is too long")
    steps = np.where(is_step, (code & 15).astype(np.int64) << 4 * np.maximum(place - 1, 0), code >> 4)
    t = np.cumsum(steps)
    if steps.min() < 0 or t.min() < 0 or t.max() >= 1 << 62:
        raise ValueError("a chunk of it is no ECF: a step of time is too long")
    last = int(begins[runs - 1])
    wide = 2 if codes[last] & 15 == 15 and codes[last] < 0xF0 else 0
    return np.repeat(t, counts), at + last + 1 + wide


def _repeated(codes: np.ndarray, n: int, mask: int, shift: int, at: int) -> tuple[np.ndarray, int]:
    """Codes of a value and how often it comes; if that is the mask, it is in the next 2 bytes."""
    wide = 2 // codes.itemsize
    begins, counts = _runs(codes, codes & mask == mask, mask, wide)
    counts, runs = _until(counts[begins], n)
    last = int(begins[runs - 1])
    end = last + 1 + (wide if codes[last] & mask == mask else 0)
    return np.repeat(codes[begins[:runs]] >> shift, counts), at + end * codes.itemsize


def _masked(codes: np.ndarray, n: int, at: int) -> tuple[np.ndarray, int]:
    """x in 11 bits, and 5 bits that say whether x + 1 … x + 5 follow."""
    there = np.ones((len(codes), 6), bool)
    there[:, 1:] = codes[:, None] >> np.arange(4, -1, -1, dtype=np.uint16) & 1
    _, words = _until(there.sum(1), n)
    x = (codes[:words, None] >> 5) + np.arange(6, dtype=np.uint16)
    return x[there[:words]][:n], at + 2 * words


def _packed(data: bytes, at: int, n: int, bits: int, parts) -> tuple[tuple[np.ndarray, ...], int]:
    """Four values of 12 or 24 bits in three words of 16 or 32."""
    kind = np.dtype("<u2" if bits == 12 else "<u4")
    groups = -(-n // 4)
    words = _codes(data, at, kind.str)[: 3 * groups].astype(np.int64)
    if len(words) < 3 * groups:
        raise ValueError("a chunk of it is no ECF: it ends too early")
    a, b, c = words.reshape(-1, 3).T
    part = bits // 3
    low = lambda v, k: v & (1 << k * part) - 1  # noqa: E731
    whole = 4 * part
    first, second = a >> part, low(a, 1) | b >> 2 * part << part
    third, fourth = low(b, 2) | c >> (whole - part) << 2 * part, low(c, 3)
    values = np.stack([first, second, third, fourth], 1).ravel()[:n]
    return parts(values), at + 3 * groups * kind.itemsize
