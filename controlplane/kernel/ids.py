"""Identifiers: UUIDv7 (RFC 9562), so that primary keys sort by creation time."""

from __future__ import annotations

import os
import secrets
import time
from datetime import datetime
from uuid import UUID


def uuid7(unix_ms: int | None = None) -> UUID:
    """A new UUID, version 7: 48 bits of milliseconds, then 74 random bits."""
    ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    rand = int.from_bytes(os.urandom(10), "big")
    value = (ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (rand >> 68) << 64 | 0b10 << 62 | rand & (2**62 - 1)
    return UUID(int=value)


def parse_uuid(text: object) -> UUID | None:
    """The UUID written in `text`, or None when there is none."""
    try:
        return UUID(str(text))
    except ValueError:
        return None


def token(prefix: str, size_bytes: int = 32) -> str:
    """A printable secret with `size_bytes` of entropy, e.g. `cp_live_…`."""
    return f"{prefix}{secrets.token_urlsafe(size_bytes)}"


def first_uuid7(at: datetime) -> UUID:
    """The least UUIDv7 of that moment: with it, a range of primary keys is a range of time."""
    return UUID(int=(int(at.timestamp() * 1000) & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | 0b10 << 62)
