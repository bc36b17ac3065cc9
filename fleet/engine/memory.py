"""A budget for arrays, asked before anything is allocated.

A prompt may name any size; the answer to an absurd one is the same error a real
server gives, and no byte is reserved for it.
"""

from __future__ import annotations

import math

DEFAULT_BYTES = 2 * 1024**3
FLOAT_BYTES = 4


def refusal(nbytes: int) -> RuntimeError:
    """The error of an allocation that did not succeed, in the words clients look for."""
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        f"you tried to allocate {nbytes} bytes. Error code 12 (Cannot allocate memory)"
    )


class MemoryBudget:
    """How many bytes the arrays of one prompt and its cache may take."""

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def claim(self, *shape: int) -> None:
        """Raise RuntimeError when a float array of `shape` does not fit."""
        nbytes = math.prod(shape) * FLOAT_BYTES
        if self.held_bytes + nbytes > self.limit_bytes:
            raise refusal(nbytes)
