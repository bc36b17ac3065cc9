"""Bytes on the store's disk, and what its failures mean."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fleet.agent.store.failures import NoRoom, StoreError

_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def allocate(path: Path, size_bytes: int) -> int:
    """The partial file at its full size, so that a full disk is told before the first byte. The descriptor. Raises NoRoom."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise failure_of(error) from error
    try:
        extend(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def extend(fd: int, size_bytes: int) -> None:
    """Take disk space up to `size_bytes`. Raises NoRoom."""
    try:
        if size_bytes and os.fstat(fd).st_size < size_bytes:
            try:
                os.posix_fallocate(fd, 0, size_bytes)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise failure_of(error) from error


def write(fd: int, data: bytes, at: int) -> None:
    """All of `data` at its place. Raises NoRoom."""
    view, written = memoryview(data), 0
    try:
        while written < len(data):
            written += os.pwrite(fd, view[written:], at + written)
    except OSError as error:
        raise failure_of(error) from error


def failure_of(error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoRoom(f"The disk of the store is full: {error.strerror}.")
    return StoreError(f"The store's disk failed: {error.strerror or error}.", "Check the disk of this host.", code="store_disk_failed")
