"""Random streams of snapshots: one each, by seed, group and index.

The stream of snapshot k of a group is ``PCG64(SeedSequence(seed, spawn_key=(crc32(group), k)))``.
Making it takes NumPy several times as long as drawing the numbers of a small cell, so streams of
consecutive snapshots are seeded together: the same arithmetic, which NumPy guarantees to keep (its
policy on bit generators and ``SeedSequence``), on arrays of 32-bit words.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

_POOL_SIZE = 4


_WORD, _HALF = np.uint64(2**32 - 1), np.uint64(16)


_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875


_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED


_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715


_PCG_MULTIPLIER, _PCG_MASK = 0x2360ED051FC65DA44385DF649FCCF645, 2**128 - 1


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
    words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)]
    words += [0] * (_POOL_SIZE - len(words))
    words.append(zlib.crc32(group.encode()))
    entropy = [*map(np.uint64, words), np.array(indices, dtype=np.uint64)]
    generator = np.random.Generator(np.random.PCG64(0))
    for high, low, inc_high, inc_low in _state_words(_mixed(entropy)).tolist():
        increment = (inc_high << 65 | inc_low << 1 | 1) & _PCG_MASK
        state = ((high << 64 | low) + increment) * _PCG_MULTIPLIER + increment & _PCG_MASK
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield generator


# SeedSequence's arithmetic (O'Neill, "Developing a seed_seq alternative", 2015) is on 32-bit words;
# they are held in 64 bits, so that products do not overflow, and cut after each step.


def _mixed(entropy: list) -> list:
    """The pool of ``SeedSequence``: four words, each an array of as many as the longest entropy."""
    constant = _INIT_A

    def hashed(value):
        nonlocal constant
        value = value ^ np.uint64(constant)
        constant = constant * _MULT_A & 0xFFFFFFFF
        value = value * np.uint64(constant) & _WORD
        return value ^ value >> _HALF

    def mix(x, y):
        # Below zero the difference is taken modulo 2^64, of which 2^32 is a divisor.
        value = x * np.uint64(_MIX_L) - y * np.uint64(_MIX_R) & _WORD
        return value ^ value >> _HALF

    with np.errstate(over="ignore"):
        pool = [hashed(word) for word in entropy[:_POOL_SIZE]]
        for source in range(_POOL_SIZE):
            for target in range(_POOL_SIZE):
                if source != target:
                    pool[target] = mix(pool[target], hashed(pool[source]))
        for word in entropy[_POOL_SIZE:]:
            for target in range(_POOL_SIZE):
                pool[target] = mix(pool[target], hashed(word))
    return pool


def _state_words(pool: list) -> np.ndarray:
    """``generate_state(4, uint64)`` of each, shape=(n, 4)."""
    constant, words = _INIT_B, []
    for k in range(2 * _POOL_SIZE):
        value = pool[k % _POOL_SIZE] ^ np.uint64(constant)
        constant = constant * _MULT_B & 0xFFFFFFFF
        value = value * np.uint64(constant) & _WORD
        words.append(value ^ value >> _HALF)
    return np.array(words[::2]).T | np.array(words[1::2]).T << np.uint64(32)
