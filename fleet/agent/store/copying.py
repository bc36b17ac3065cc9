"""A local file into the store: a copy, so that its owner may change it; where the file system can, the blocks are shared."""

from __future__ import annotations

import errno
import os

from fleet.agent.store import disk, ranges
from fleet.agent.store.arriving import CHUNK, Arriving
from fleet.agent.store.failures import Gone, WrongBytes
from fleet.agent.store.sources import Source

_NOT_THIS_WAY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def copy(source: Source, into: Arriving) -> None:
    """Fill `into` from the source's file. Raises a StoreError."""
    assert source.path is not None
    into.begin()
    try:
        fd = os.open(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Gone(f"{source.shown} cannot be read: {error.strerror}.", url=source.shown) from error
    try:
        size = os.fstat(fd).st_size
        if into.known_size is not None and size != into.known_size:
            raise WrongBytes(f"{source.shown} has {size} bytes and not {into.known_size}.", url=source.shown)
        into.sized(size)
        into.hashed_beside(lambda: _copy(fd, size, source, into))
    finally:
        os.close(fd)
        into.note(force=True)


def _copy(fd: int, size: int, source: Source, into: Arriving) -> None:
    for start, end in ranges.parts(into.spans, size, 16 * CHUNK):
        at = start
        while at < end:
            into.check()
            count = _piece(fd, into.fd, at, end)
            if not count:
                raise WrongBytes(f"{source.shown} became shorter while it was copied.", url=source.shown)
            into.arrived(at, at + count)
            at += count


def _piece(fd: int, into: int, at: int, end: int) -> int:
    """Some of the bytes from `at` to `end`: how many."""
    try:
        return os.copy_file_range(fd, into, end - at, at, at)
    except OSError as error:
        if error.errno not in _NOT_THIS_WAY:
            raise disk.failure_of(error) from error
    data = os.pread(fd, min(CHUNK, end - at), at)
    disk.write(into, data, at)
    return len(data)
