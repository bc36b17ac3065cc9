"""What bytes are, told by the bytes: names and declared types are not trusted. Pure."""

from __future__ import annotations

import json

HEAD_BYTES = 4096

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x76\x2f\x31\x01", "image/x-exr"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\x1a\x45\xdf\xa3", "video/x-matroska"),
    (b"glTF", "model/gltf-binary"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)

RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
STILL_BRANDS = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif"}


def sniff(data: bytes) -> str:
    """The media type of a file's content; `application/octet-stream` when it is not known."""
    head = data[:HEAD_BYTES]
    if head[:4] == b"RIFF" and head[8:12] in RIFF:
        return RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[:4] == b"OggS":
        return "video/ogg" if b"\x80theora" in head else "audio/ogg"
    for magic, media_type in SIGNATURES:
        if head.startswith(magic):
            if magic == b"BM" and len(head) < 26:
                continue
            return "video/webm" if media_type == "video/x-matroska" and b"webm" in head[:64] else media_type
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
        return "audio/mpeg"
    if is_safetensors(head):
        return "application/x-safetensors"
    return _text(data)


def kind(media_type: str) -> str:
    """The protocol's kind of an output: image, video, audio, text or file."""
    family = media_type.partition("/")[0]
    if family in ("image", "video", "audio", "text"):
        return family
    return "text" if media_type == "application/json" else "file"


def is_safetensors(head: bytes) -> bool:
    if len(head) < 10:
        return False
    size = int.from_bytes(head[:8], "little")
    return 2 <= size < 100_000_000 and head[8:9] == b"{"


def _iso_media(head: bytes) -> str:
    brand = head[8:12]
    if brand in STILL_BRANDS:
        return STILL_BRANDS[brand]
    if brand in (b"M4A ", b"M4B "):
        return "audio/mp4"
    return "video/quicktime" if brand == b"qt  " else "video/mp4"


def _text(data: bytes) -> str:
    if not data:
        return "application/octet-stream"
    head = data[:HEAD_BYTES]
    try:
        # A multi-byte character may be cut by the window's edge.
        text = head.decode("utf-8", "strict" if len(data) <= HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return "application/octet-stream"
    if "\x00" in text or (len(data) > HEAD_BYTES and len(text.encode()) < len(head) - 3):
        return "application/octet-stream"
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("<svg") or (start.startswith("<?xml") and "<svg" in start):
        return "image/svg+xml"
    if start[:1] in "{[" and len(data) <= 1_000_000:
        try:
            json.loads(data)
        except ValueError:
            return "text/plain"
        return "application/json"
    return "text/plain"
