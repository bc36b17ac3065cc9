"""Who uses the store, and whether they live; and who fetches a file. Both are file locks: the kernel lets go for the dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Holder:
    """This process, known by a locked file for as long as it lives."""

    def __init__(self, directory: Path) -> None:
        self.id = uuid.uuid4().hex
        self._path = directory / self.id
        # Beside the directory until it is locked, or another process could take it for that of a dead one.
        fresh = directory.with_name(f".{self.id}.new")
        self._fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.write(self._fd, f"{os.getpid()}\n".encode())  # for people; ids of processes mean nothing in another container
        fresh.rename(self._path)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def lives(directory: Path, holder: str) -> bool:
    """Whether the process behind a holder's name still runs."""
    try:
        fd = os.open(directory / holder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def bury(directory: Path, holder: str) -> None:
    with contextlib.suppress(OSError):
        (directory / holder).unlink()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for one's turn at something short."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Try to be the one that fetches a file; False when somebody else is. The lock's file is gone when the last is through."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    held = False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The name may meanwhile stand for another file, which somebody else locked.
            held = _same(fd, path)
        except BlockingIOError:
            held = False
        yield held
    finally:
        if held:
            path.unlink(missing_ok=True)  # under the lock: whoever waits on it sees that the name is gone
        os.close(fd)


def claimed(path: Path) -> bool:
    """Whether somebody fetches the file now."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _same(fd: int, path: Path) -> bool:
    try:
        here, there = os.fstat(fd), path.stat()
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
