"""Random numbers of samples: each follows from the seed, the epoch, the sample's index and what it is for, and nothing else.

So a sample is augmented alike in whatever batch, process or rank it is, and wherever a run goes on. They are drawn on the CPU,
all of a batch at once, and are the same on each device.
"""

import hashlib
from functools import lru_cache

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)


def keys_of(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """The keys of samples in an epoch: mix(hash(seed, epoch) + index), uint64 [N].

    Their random numbers follow from them: `whole`, `uniform` and `seeds` of (keys, what they are for).
    """
    return mix(_hash(f"{seed} {epoch}") + indices.astype(np.uint64))


def whole(keys: np.ndarray, of: str, *below: int) -> np.ndarray:
    """For each k a whole number from 0 to below[k] - 1, all alike often, int64 [K, N]: ⌊below[k] · u[k]⌋, u from `uniform`.

    Of a number that is not a power of two, some are more likely than others by a share of at most below[k] / 2⁵³.
    """
    return (uniform(keys, of, len(below)) * np.array(below)[:, None]).astype(np.int64)


def uniform(keys: np.ndarray, of: str, count: int) -> np.ndarray:
    """u[k, n] = ⌊h[k, n] / 2¹¹⌋ / 2⁵³, uniform in 0 ≤ u < 1, float64 [count, N].

    h[k, n] = mix(s[n] + k · GAMMA) are the numbers of splitmix64 that begins with s[n] = keys[n] ⊕ hash(of), so what one
    operation draws tells nothing of another's.
    """
    return (_numbers(keys, of, count) >> np.uint64(11)) * 2.0**-53


def seeds(keys: np.ndarray, of: str) -> list[int]:
    """A seed of each sample for a generator of torch's, from 0 to 2⁶³ - 1."""
    return (_numbers(keys, of, 1)[0] >> np.uint64(1)).tolist()


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64: the number of each state, uint64, by which the next state is x + GAMMA. One to one.

    Source:
        Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014; the constants are those of Vigna's
        public C code.
    """
    x = x + GAMMA
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _numbers(keys: np.ndarray, of: str, count: int) -> np.ndarray:
    return mix((keys ^ _hash(of)) + _steps(count))


@lru_cache
def _steps(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)[:, None] * GAMMA


@lru_cache
def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
