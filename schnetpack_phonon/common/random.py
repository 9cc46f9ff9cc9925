"""Random numbers: samples of a bootstrap, and a stream for each snapshot.

The stream of snapshot k of a group is ``PCG64(SeedSequence(seed, spawn_key=(crc32(group), k)))``.
NumPy takes as long to seed one stream as to draw the numbers of a small cell, so streams of
consecutive snapshots are seeded together: NumPy mixes the seed and the group, and the last steps of
the same arithmetic run on arrays. NumPy guarantees to keep it (its policy on bit generators and
``SeedSequence``). One by one, a 40-atom crystal gives over a quarter fewer snapshots a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

N_BOOTSTRAP = 1000  #: samples
LEVEL = 0.95  #: of intervals
_POOL_SIZE = 4  # words of 32 bits
# Constants of SeedSequence (O'Neill, "Developing a seed_seq alternative", 2015) and of PCG64.
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_PCG_MULTIPLIER, _PCG_MASK = 0x2360ED051FC65DA44385DF649FCCF645, 2**128 - 1


def drawn(n: int, rng: np.random.Generator, n_samples: int = N_BOOTSTRAP) -> np.ndarray:
    """How often each of n things is in each sample of a bootstrap, shape=(n_samples, n)."""
    draw = rng.integers(n, size=(n_samples, n)) + n * np.arange(n_samples)[:, None]
    counts = np.bincount(draw.ravel(), minlength=n * n_samples)
    return counts.reshape(n_samples, n).astype(float)


def interval(samples: np.ndarray) -> np.ndarray:
    """Limits between which 95 % of bootstrap samples lie.

    Args:
        samples: shape=(n_samples, ...).

    Returns:
        Lower and upper limits, shape=(2, ...).
    """
    return np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def snapshot_stream(seed: int, group: str, index: int) -> np.random.Generator:
    """The random stream of snapshot ``index`` of a named group."""
    key = (zlib.crc32(group.encode()), index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def snapshot_streams(seed: int, group: str, indices: range) -> Iterator[np.random.Generator]:
    """The same of several snapshots; each is valid until the next one is asked for.

    Args:
        seed: any integer >= 0.
        group: its name.
        indices: below 2^32.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    for high, low, inc_high, inc_low in _state_words(seed, group, indices).tolist():
        increment = (inc_high << 65 | inc_low << 1 | 1) & _PCG_MASK
        state = ((high << 64 | low) + increment) * _PCG_MULTIPLIER + increment & _PCG_MASK
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield generator


def _state_words(seed: int, group: str, indices: range) -> np.ndarray:
    """``SeedSequence.generate_state(4, uint64)`` of each stream, shape=(n, 4)."""
    before = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(group.encode()),))
    # Each word mixed in so far took one hash for each word of the pool; the index is the last.
    n_words = max(-(-seed.bit_length() // 32), _POOL_SIZE) + 1
    index = _hashed(
        np.array(indices, np.uint32), _constants(_INIT_A, _MULT_A, _POOL_SIZE * n_words, _POOL_SIZE)
    )
    mixed: np.ndarray = before.pool[:, None] * _MIX_L - index * _MIX_R
    mixed ^= mixed >> 16
    words = _hashed(np.tile(mixed, (2, 1)), _constants(_INIT_B, _MULT_B, 0, 2 * _POOL_SIZE))
    low, high = words.astype(np.uint64).reshape(-1, 2, len(indices)).swapaxes(0, 1)
    return (high << 32 | low).T


def _constants(initial: int, factor: int, first: int, n: int) -> np.ndarray:
    """Of n successive hashes and the one after, shape=(n + 1, 1)."""
    values = [initial * pow(factor, first + k, 2**32) % 2**32 for k in range(n + 1)]
    return np.array(values, np.uint32)[:, None]


def _hashed(words: np.ndarray, constants: np.ndarray) -> np.ndarray:
    words = (words ^ constants[:-1]) * constants[1:]  # of 32 bits: products are cut
    return words ^ words >> 16
