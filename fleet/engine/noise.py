"""The noise of a seed, number for number as PyTorch draws it on a processor.

A workflow then gives the same pixels here and on a real server: a Mersenne twister,
24 bits per uniform number, Box-Muller in blocks of sixteen, the last block drawn anew when it is cut.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BLOCK = 16
BITS = 24
AT_ONCE = 1 << 16  # numbers that fit a processor's cache


def normal(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal numbers. Arrays of fewer than sixteen follow the same rule, where PyTorch has another."""
    count = math.prod(shape)
    twister = np.random.RandomState(seed & 0xFFFFFFFF)
    whole = max(count, BLOCK)
    numbers = np.empty(whole, dtype=np.float32)
    for start in range(0, whole, AT_ONCE):
        part = numbers[start : start + AT_ONCE]
        part[:] = _uniform(twister, len(part))
        end = len(part) - len(part) % BLOCK
        _box_muller(part[:end])
    if whole % BLOCK:
        numbers[-BLOCK:] = _uniform(twister, BLOCK)
        _box_muller(numbers[-BLOCK:])
    return numbers[:count].reshape(shape)


def _uniform(twister: np.random.RandomState, count: int) -> npt.NDArray[np.float32]:
    raw = twister.randint(0, 1 << 32, count, dtype=np.uint32)
    raw &= (1 << BITS) - 1
    return raw.astype(np.float32) * np.float32(2.0**-BITS)


def _box_muller(numbers: npt.NDArray[np.float32]) -> None:
    """Uniform numbers become normal ones in place: in each block eight give the radii, eight the angles."""
    pairs = numbers.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - pairs[:, 0]))
    angle = np.float32(2 * math.pi) * pairs[:, 1]
    np.multiply(radius, np.cos(angle), out=pairs[:, 0])
    np.multiply(radius, np.sin(angle), out=pairs[:, 1])
