"""Output bytes over HTTP: ranges, validators, and headers that never let a file run as a page."""

import io

import pytest
from django.test import RequestFactory

from controlplane.kernel import blobs
from fleet import downloads
from fleet.models import Output

BODY = bytes(range(256)) * 4


@pytest.fixture(autouse=True)
def stored(monkeypatch):
    opened = []

    def open_blob(sha256):
        opened.append(io.BytesIO(BODY))
        return opened[-1]

    monkeypatch.setattr(blobs, "open", open_blob)
    return opened


def get(*, name="out.png", media_type="image/png", method="get", size=len(BODY), **headers):
    output = Output(blob_id="ab" * 32, name=name, media_type=media_type, size_bytes=size, index=0)
    request = getattr(RequestFactory(), method)("/x", headers={k.replace("_", "-"): v for k, v in headers.items()})
    return downloads.respond(request, output)


def body(response):
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_the_whole_file_comes_with_type_length_and_a_validator():
    response = get()
    assert (response.status_code, response["Content-Type"], response["Content-Length"]) == (200, "image/png", str(len(BODY)))
    assert response["ETag"] == f'"{"ab" * 32}"'
    assert response["Accept-Ranges"] == "bytes"
    assert body(response) == BODY


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=1000-", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=1020-99999", 1020, 1023),
        ("bytes=-99999", 0, 1023),
        ("bytes=0-0", 0, 0),
    ],
)
def test_a_range_gives_just_those_bytes(asked, start, end):
    response = get(Range=asked)
    assert response.status_code == 206
    assert response["Content-Range"] == f"bytes {start}-{end}/1024"
    assert response["Content-Length"] == str(end - start + 1)
    assert body(response) == BODY[start : end + 1]


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=-0", "bytes=5000-6000"])
def test_a_range_outside_the_file_is_416_and_says_the_size(asked):
    response = get(Range=asked)
    assert (response.status_code, response["Content-Range"]) == (416, "bytes */1024")
    assert b"range_not_satisfiable" in response.content


@pytest.mark.parametrize("asked", ["bytes=9-1", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=" + "9" * 40 + "-", ""])
def test_a_range_that_cannot_be_served_in_parts_gives_the_whole_file(asked):
    response = get(Range=asked)
    assert response.status_code == 200
    assert body(response) == BODY


def test_an_outdated_if_range_gives_the_whole_file_and_a_current_one_the_part():
    assert get(Range="bytes=0-1", If_Range='"older"').status_code == 200
    assert get(Range="bytes=0-1", If_Range=f'"{"ab" * 32}"').status_code == 206


def test_a_known_validator_is_answered_with_304_and_no_bytes(stored):
    response = get(If_None_Match=f'W/"{"ab" * 32}"')
    assert (response.status_code, response.content) == (304, b"")
    assert not stored


def test_head_opens_nothing_and_says_the_length(stored):
    response = get(method="head", Range="bytes=0-9")
    assert (response.status_code, response["Content-Length"], response.content) == (206, "10", b"")
    assert not stored


@pytest.mark.parametrize(
    "media_type",
    ["text/html", "image/svg+xml", "application/xhtml+xml", "text/plain", "application/pdf", "nonsense", "text/html\r\nX-Evil: 1", "IMAGE/SVG+XML"],
)
def test_anything_that_could_run_is_a_sandboxed_download(media_type):
    response = get(media_type=media_type, name="page.html")
    assert response["Content-Disposition"].startswith("attachment")
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "\n" not in response["Content-Type"]


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "audio/flac", "video/mp4", "IMAGE/PNG", "video/webm; codecs=vp9"])
def test_known_pictures_sound_and_video_open_in_place_and_stay_sandboxed(media_type):
    response = get(media_type=media_type)
    assert response["Content-Disposition"].startswith("inline")
    assert "sandbox" in response["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", 'filename="passwd"'),
        ("..\\..\\boot.ini", 'filename="boot.ini"'),
        ('a"b.png', 'filename="a\\"b.png"'),
        ("a\r\nSet-Cookie: x.png", 'filename="aSet-Cookie: x.png"'),
        ("zażółć.png", "filename*=utf-8''za%C5%BC%C3%B3%C5%82%C4%87.png"),
        ("dir/", 'filename="output-0"'),
    ],
)
def test_a_file_name_cannot_escape_its_header_or_folder(name, expected):
    assert expected in get(name=name)["Content-Disposition"]


def test_an_empty_file_is_served_as_nothing():
    response = get(size=0)
    assert (response.status_code, response["Content-Length"], body(response)) == (200, "0", b"")


def test_the_stream_is_closed_even_when_nobody_reads_it(stored):
    for close in get()._resource_closers:
        close()
    assert stored[0].closed
