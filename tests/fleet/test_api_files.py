"""Files over HTTP: kept once, told by their bytes, refused before they can hurt."""

import io
import struct
import zlib

import pytest

from controlplane.kernel.models import Blob
from fleet.models import CustomerFile
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture
def api():
    return world.caller()


def test_the_same_bytes_are_kept_once_and_give_the_same_id(api):
    first = api.form("/v1/files", {"file": world.upload("a.png", world.png())})
    again = api.form("/v1/files", {"file": world.upload("b.png", world.png())})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first["Location"] == f"http://testserver/v1/files/{first.json()['id']}"
    assert (CustomerFile.objects.count(), Blob.objects.count()) == (1, 1)
    assert api.get(f"/v1/files/{first.json()['id']}").json() == first.json()


def test_a_file_may_come_as_the_body(api):
    response = api.post("/v1/files", world.png(5, 7), content_type="image/png", X_File_Name="caf%C3%A9.png")
    assert response.status_code == 201
    assert {k: response.json()[k] for k in ("name", "media_type", "width", "height", "bytes")} == {
        "name": "café.png", "media_type": "image/png", "width": 5, "height": 7, "bytes": len(world.png(5, 7))
    }  # fmt: skip


def test_the_type_is_told_by_the_bytes_not_by_the_sender(api):
    response = api.post("/v1/files", b"<script>alert(1)</script>", content_type="image/png", X_File_Name="x.png")
    assert response.json()["media_type"] == "text/plain"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x.png", "/abs/olute.png", "a\x00b.png", "....//x", "con\r\nX: y", "%2e%2e%2fx", "\u202egnp.exe", "é" * 400]
)
def test_path_tricks_in_names_come_to_nothing(api, name):
    from urllib.parse import quote

    response = api.post("/v1/files", world.png(), content_type="image/png", X_File_Name=quote(name))
    kept = response.json()["name"]
    assert response.status_code == 201
    assert kept and len(kept) <= 120
    assert not set(kept) & set("/\\\x00\r\n\u202e")
    assert not kept.startswith(".")


def bomb(width, height):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "file_empty"),
        (world.png()[:40], 422, "image_undecodable"),
        (b"\x89PNG\r\n\x1a\n" + b"garbage" * 10, 422, "image_undecodable"),
        (b"\xff\xd8\xff\xe0broken", 422, "image_undecodable"),
        (b"GIF89a" + b"\x00" * 4, 422, "image_undecodable"),
        (bomb(60_000, 60_000), 413, "image_too_large"),
        (bomb(2**31 - 1, 2**31 - 1), 413, "image_too_large"),
    ],
    ids=["empty", "cut", "garbage", "no jpeg", "no gif", "bomb", "largest bomb"],
)
def test_images_that_do_not_decode_and_bombs_are_refused(api, data, status, code):
    response = api.post("/v1/files", data, content_type="application/octet-stream")
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["suggestion"]
    assert not Blob.objects.exists()


def test_a_file_past_the_limit_is_refused_however_it_comes(api, settings):
    settings.MAX_FILE_BYTES = 1000
    for response in (
        api.post("/v1/files", b"x" * 1001, content_type="application/octet-stream"),
        api.form("/v1/files", {"file": world.upload("x.txt", b"x" * 1001)}),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (413, "file_too_large")
    assert api.form("/v1/files", {"file": world.upload("x.txt", b"x" * 300_000)}).status_code == 413
    assert not Blob.objects.exists()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_file"),
        ({"file": "not a file"}, "unknown_field"),
        ({"picture": io.BytesIO(b"x")}, "unknown_field"),
    ],
)
def test_a_form_without_its_file_is_refused(api, fields, code):
    response = api.form("/v1/files", fields)
    assert (response.status_code, response.json()["error"]["code"]) == (422, code)


def test_uploads_count_against_the_requests_of_the_minute():
    api = world.caller("small", requests_per_minute=2)
    statuses = [api.post("/v1/files", f"file {n}".encode(), content_type="text/plain").status_code for n in range(3)]
    assert statuses == [201, 201, 429]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/workflows/paint/jobs"])
def test_past_the_requests_of_the_minute_nothing_is_kept(path):
    world.workflow(expose=[{"name": "photo", "node": "3", "input": "image", "kind": "image"}])
    api = world.caller(requests_per_minute=1)
    assert api.form("/v1/files", {"file": world.upload("a.png", world.png())}).status_code == 201
    refused = api.form(path, {"file" if path == "/v1/files" else "photo": world.upload("b.png", world.png(9, 9))})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "requests_limit")
    assert Blob.objects.count() == 1
