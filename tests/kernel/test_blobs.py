from __future__ import annotations

import hashlib
import io
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.db import connection

from controlplane.kernel import blobs, errors
from controlplane.kernel.models import Blob

pytestmark = pytest.mark.django_db
LOCAL = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
ELSEWHERE = {"BACKEND": "django.core.files.storage.InMemoryStorage"}  # like S3: no path to open


@pytest.fixture(params=["local", "elsewhere"])
def store(request, settings, tmp_path) -> Path:
    default = {**LOCAL, "OPTIONS": {"location": str(tmp_path)}} if request.param == "local" else ELSEWHERE
    settings.STORAGES = {**settings.STORAGES, "default": default}
    return tmp_path


@pytest.fixture
def local(settings, tmp_path) -> Path:
    settings.STORAGES = {**settings.STORAGES, "default": {**LOCAL, "OPTIONS": {"location": str(tmp_path)}}}
    return tmp_path


def keep(data: bytes, now: datetime, **extra) -> Blob:
    return blobs.put(io.BytesIO(data), **{"media_type": "image/png", "max_bytes": 1_000_000, "now": now, **extra})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_bytes_are_kept_under_their_hash_and_read_back(store, now) -> None:
    data = os.urandom(600_000)
    blob = keep(data, now)
    assert (blob.sha256, blob.size_bytes, blob.media_type, blob.created_at) == (hashlib.sha256(data).hexdigest(), 600_000, "image/png", now)
    with blobs.open(blob.sha256) as stream:
        assert stream.read() == data
    assert blobs.read(blob.sha256, 600_000) == data and blobs.size(blob.sha256) == 600_000


def test_the_same_bytes_are_kept_once(store, now) -> None:
    first, second = keep(b"same", now), keep(b"same", now + timedelta(days=1), media_type="text/plain")
    assert first == second and Blob.objects.count() == 1 and second.created_at == now and second.media_type == "image/png"
    folder = f"{first.sha256[:2]}/{first.sha256[2:4]}"
    assert default_storage.listdir(folder)[1] == [first.sha256]


def test_nothing_is_empty_bytes_too(store, now) -> None:
    assert blobs.read(keep(b"", now).sha256, 0) == b""


def test_too_many_bytes_are_refused_before_the_stream_ends(store, now) -> None:
    class Endless:
        served = 0

        def read(self, size: int) -> bytes:
            self.served += size
            return b"x" * size

    stream = Endless()
    with pytest.raises(errors.TooLarge) as caught:
        blobs.put(stream, media_type="x/y", max_bytes=1_000_000, now=now)
    assert caught.value.code == "file_too_large" and stream.served < 1_400_000
    assert not Blob.objects.exists() and files(store) == []
    assert keep(b"x" * 10, now, max_bytes=10).size_bytes == 10


def test_bytes_that_are_not_the_announced_ones_are_refused(store, now) -> None:
    with pytest.raises(errors.Invalid) as caught:
        keep(b"evil", now, expect_sha256=hashlib.sha256(b"good").hexdigest())
    assert caught.value.code == "hash_mismatch" and not Blob.objects.exists() and files(store) == []
    assert keep(b"good", now, expect_sha256=hashlib.sha256(b"good").hexdigest().upper())


def test_a_stream_that_breaks_leaves_nothing(store, now) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(Broken(), media_type="x/y", max_bytes=10, now=now)
    assert files(store) == []


@pytest.mark.parametrize("name", ["", "a", "../../etc/passwd", "A" * 64, "0" * 63 + "/", "0" * 64 + "\n", "0" * 64])
def test_only_the_hash_of_kept_bytes_opens(store, name: str) -> None:
    for ask in (blobs.open, blobs.size, lambda sha256: blobs.read(sha256, 10)):
        with pytest.raises(errors.NotFound):
            ask(name)


def test_reading_is_bounded(store, now) -> None:
    blob = keep(b"x" * 11, now)
    with pytest.raises(errors.TooLarge):
        blobs.read(blob.sha256, 10)


def test_local_bytes_have_a_path_and_others_none(local, now, settings) -> None:
    blob = keep(b"here", now)
    path = blobs.local_path(blob.sha256)
    assert path is not None and path.read_bytes() == b"here" and path.is_relative_to(local)
    assert blobs.local_path("0" * 64) is None
    settings.STORAGES = {**settings.STORAGES, "default": ELSEWHERE}
    assert blobs.local_path(blob.sha256) is None


def test_a_file_damaged_on_disk_heals_when_its_bytes_come_again(local, now) -> None:
    blob = keep(b"whole", now)
    path = blobs.local_path(blob.sha256)
    path.write_bytes(b"wh")
    keep(b"whole", now)
    assert path.read_bytes() == b"whole"


def test_what_killed_writers_left_is_swept_after_a_day(local, now) -> None:
    keep(b"x", now)
    left = local / ".incoming" / "blob-left"
    left.write_bytes(b"half")
    os.utime(left, (now.timestamp(), now.timestamp()))
    assert blobs.sweep(now=now + timedelta(hours=23)) == 0 and left.exists()
    assert blobs.sweep(now=now + timedelta(hours=25)) == 1 and not left.exists()


@pytest.mark.django_db(transaction=True)
def test_many_who_bring_the_same_bytes_at_once_all_succeed(local, now) -> None:
    data, gate, got = os.urandom(300_000), threading.Barrier(6), []

    def bring() -> None:
        try:
            gate.wait(10)
            got.append(keep(data, now).sha256)
        finally:
            connection.close()

    threads = [threading.Thread(target=bring) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [hashlib.sha256(data).hexdigest()] * 6 and Blob.objects.count() == 1
    assert len(files(local)) == 1
