"""Bytes kept under their SHA-256: the same bytes once, whoever brings them and by whatever name.

A stream is hashed and measured while it goes to a temporary file; only bytes that passed both checks
appear under their hash, all at once. The row is written after the bytes, so a row's bytes are there.
Django's default storage decides where: local files are moved and opened directly, anything else
(S3) goes through its API.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage

from controlplane.kernel import errors
from controlplane.kernel.models import Blob

CHUNK = 256 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INCOMING = ".incoming"


class Readable(Protocol):
    """All that `put` asks of a stream."""

    def read(self, size: int, /) -> bytes: ...


def put(stream: Readable, *, media_type: str, max_bytes: int, expect_sha256: str | None = None, now: datetime) -> Blob:
    """Keep what `stream` holds. Idempotent; refuses more than `max_bytes`, and bytes that are not `expect_sha256`.

    Do not call it inside a transaction: it waits for the stream.
    """
    root = _local_root()
    if root is not None:
        (root / _INCOMING).mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="blob-", dir=root and root / _INCOMING)
    incoming = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as out:
            sha256, size = _copy(stream, out, max_bytes)
            if expect_sha256 is not None and expect_sha256.lower() != sha256:
                raise errors.Invalid(
                    "hash_mismatch",
                    "The bytes that arrived are not the bytes that were announced.",
                    "Send the file again, with the SHA-256 of exactly these bytes.",
                    details={"expected": expect_sha256[:64], "received": sha256},
                )
            out.flush()
            if root is None:
                out.seek(0)
                _upload(_name(sha256), out)
            else:
                os.fsync(out.fileno())
        if root is not None:
            place = root / _name(sha256)
            place.parent.mkdir(parents=True, exist_ok=True)
            incoming.replace(place)
    finally:
        incoming.unlink(missing_ok=True)
    return Blob.objects.get_or_create(sha256=sha256, defaults={"size_bytes": size, "media_type": media_type[:100], "created_at": now})[0]


def open(sha256: str) -> BinaryIO:
    """The bytes, to be read from and closed by the caller."""
    try:
        if root := _local_root():
            return (root / _name(sha256)).open("rb")
        return cast(BinaryIO, default_storage.open(_name(sha256), "rb"))
    except FileNotFoundError:
        raise _not_found() from None


def read(sha256: str, limit: int) -> bytes:
    """All the bytes; refuses when there are more than `limit`."""
    with open(sha256) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_large(limit)
    return data


def size(sha256: str) -> int:
    """How many bytes are kept under this hash."""
    found = Blob.objects.filter(sha256=sha256).values_list("size_bytes", flat=True).first()
    if found is None:
        raise _not_found()
    return found


def local_path(sha256: str) -> Path | None:
    """Where the bytes lie on this machine's disk; None when they are kept elsewhere or not at all."""
    root = _local_root()
    if root is None:
        return None
    path = root / _name(sha256)
    return path if path.is_file() else None


def sweep(*, now: datetime) -> int:
    """Remove what writers that were killed left behind more than a day ago."""
    root, removed = _local_root(), 0
    if root is not None:
        for left in (root / _INCOMING).glob("blob-*"):
            try:
                if left.stat().st_mtime < (now - timedelta(days=1)).timestamp():
                    left.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
    return removed


def _copy(stream: Readable, out: BinaryIO, max_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        digest.update(chunk)
        out.write(chunk)
    return digest.hexdigest(), size


def _upload(name: str, stream: BinaryIO) -> None:
    if default_storage.exists(name):
        return
    saved = default_storage.save(name, File(stream, name=name))
    if saved != name:  # somebody else stored the same bytes first, and this storage never overwrites
        default_storage.delete(saved)


def _local_root() -> Path | None:
    return Path(default_storage.location) if isinstance(default_storage, FileSystemStorage) else None


def _name(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise _not_found()
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _not_found() -> errors.NotFound:
    return errors.NotFound("blob_not_found", "No bytes are kept under this hash.", "Upload the file again with POST /v1/files.")


def _too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge("file_too_large", f"The file is larger than {limit} bytes.", "Send a smaller file.", details={"max_bytes": limit})
