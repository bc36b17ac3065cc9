"""What bytes are: by content, before anything large is decoded, whatever they claim to be."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from controlplane.kernel.errors import Invalid, TooLarge, WorkflowError
from fleet import media


def picture(kind: str = "PNG", size: tuple[int, int] = (9, 7), **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims and could give gigabytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (picture(), "image/png"),
        (picture("JPEG"), "image/jpeg"),
        (picture("WEBP"), "image/webp"),
        (picture("GIF"), "image/gif"),
        (picture("BMP"), "image/bmp"),
        (picture("TIFF"), "image/tiff"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00EVIL", "application/octet-stream"),
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
        (b"<html><script>alert(1)</script>", "text/plain"),
        (b"<svg onload=alert(1)>", "text/plain"),
        (b"BMW builds cars", "text/plain"),
        ("é".encode(), "text/plain"),
        (("я" * 3000).encode()[:4096], "text/plain"),
        (("x" + "я" * 3000).encode()[:4096], "text/plain"),
        (("😀" * 2000).encode()[:4095], "text/plain"),
        (b"caf\xe9 latin", "application/octet-stream"),
        (b"text\x00text", "application/octet-stream"),
        (b"MZ\x90\x00", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_bytes_say_what_they_are(head: bytes, kind: str) -> None:
    assert media.sniff(head[:4096]) == kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_whole_images_decode(kind: str) -> None:
    assert media.check_image(io.BytesIO(picture(kind)), max_pixels=63) == (9, 7)


@pytest.mark.parametrize("data", [bomb(60_000, 60_000), bomb(20_000, 20_000), bomb(2**31 - 1, 2**31 - 1), picture(size=(8, 8))])
def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(data: bytes) -> None:
    with pytest.raises(TooLarge) as refused:
        media.check_image(io.BytesIO(data), max_pixels=63)
    assert refused.value.code == "image_too_large"


def test_frames_count_as_pixels() -> None:
    frames = [Image.new("L", (10, 10), n) for n in range(1, 50)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(TooLarge):
        media.check_image(out, max_pixels=1_000)


@pytest.mark.parametrize(
    "data",
    [
        picture()[:-28],
        picture()[:40],
        picture("JPEG")[:200],
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM" + b"\x00" * 50,
        b"II*\x00\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"not zlib") + chunk(b"IEND", b""),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nsystemdict /quit get exec\n",
    ],
    ids=range(9),
)
def test_broken_images_and_other_peoples_formats_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        media.check_image(io.BytesIO(data), max_pixels=10**6)
    assert refused.value.code == "image_undecodable"


def test_a_polyglot_is_what_it_begins_with() -> None:
    data = picture("GIF") + b"PK\x03\x04" + b"<script>alert(1)</script>"
    assert media.sniff(data) == "image/gif"
    assert media.check_image(io.BytesIO(data), max_pixels=63) == (9, 7)


@settings(max_examples=150)
@given(magic=st.sampled_from([picture(k)[:60] for k in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]), cut=st.integers(2, 60), tail=st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(magic: bytes, cut: int, tail: bytes) -> None:
    data = magic[:cut] + tail
    media.sniff(data)
    with contextlib.suppress(WorkflowError):
        media.check_image(io.BytesIO(data), max_pixels=10_000)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("／etc／shadow", "shadow"),
        ("a\x00.png", "a_.png"),
        ("‮gnp.exe", "_gnp.exe"),
        ("...", "file"),
        ("", "file"),
        (".htaccess", "htaccess"),
        ("/", "file"),
        ("a\r\nSet-Cookie: x=1.png", "a_Set-Cookie_ x_1.png"),
        ("Käfer (2).png", "Käfer (2).png"),
        ("x." + "y" * 119, "y" * 119),
        ("\ud800.png", "_.png"),
    ],
)
def test_names_lose_their_tricks(name: str, kept: str) -> None:
    assert media.safe_name(name) == kept


@given(name=st.text(max_size=300))
def test_every_name_is_safe(name: str) -> None:
    kept = media.safe_name(name)
    assert 0 < len(kept) <= 120 and not kept.startswith(".") and not set(kept) & set("/\\\x00\n\r\"'<>:;%")
    kept.encode()
