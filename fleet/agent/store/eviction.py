"""Which files go when room is needed. Pure: least recently used first, what is in use never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in the store, whole or under way, with the room it takes; a lower `turn` was used longer ago."""

    sha256: str
    room_bytes: int
    turn: int
    pinned: bool = False


def room_of(size_bytes: int) -> int:
    """The room a file takes: whole blocks, at least one."""
    return max((size_bytes + BLOCK - 1) // BLOCK, 1) * BLOCK


def victims(kept: Sequence[Kept], *, need_bytes: int, cap_bytes: int, disk_free_bytes: int) -> list[str] | None:
    """What must go so that `need_bytes` more fit under the cap and on the disk; None when that cannot be.

    `disk_free_bytes` is what the disk can still give beyond what is promised already; it may be negative.
    """
    used = sum(k.room_bytes for k in kept)
    too_much = max(used + need_bytes - cap_bytes, need_bytes - disk_free_bytes if need_bytes else 0)
    chosen: list[str] = []
    for one in sorted((k for k in kept if not k.pinned), key=lambda k: (k.turn, k.sha256)):
        if too_much <= 0:
            break
        chosen.append(one.sha256)
        too_much -= one.room_bytes
    return chosen if too_much <= 0 else None
