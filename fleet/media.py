"""What bytes are, told from the bytes: media type, image size, and a name safe to keep. Headers first; nothing large is decoded unchecked."""

from __future__ import annotations

import codecs
import re
import unicodedata
import warnings
from typing import BinaryIO

from controlplane.kernel.errors import Invalid, TooLarge

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (4, b"ftyp", "video/mp4"),
)

# Only these decoders ever see a customer's bytes; Pillow knows dozens, some of which start other programs.
_DECODED = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def sniff(head: bytes) -> str:
    """The media type `head` (the first few kB) shows; text/plain for clean UTF-8, else application/octet-stream."""
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(head[8:12], "application/octet-stream")
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":  # two letters alone may begin any text
        return "image/bmp"
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head and b"\x00" not in head:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a character
            return "text/plain"
        except UnicodeDecodeError:
            pass
    return "application/octet-stream"


def check_image(stream: BinaryIO, *, max_pixels: int) -> tuple[int, int]:
    """Width and height of an image that really decodes. The header is judged before a single pixel is."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(stream, formats=_DECODED) as image:
                width, height = image.size
                frames = getattr(image, "n_frames", 1)
                if width * height * max(frames, 1) > max_pixels:
                    raise TooLarge(
                        "image_too_large",
                        f"The image has {width} × {height} pixels{f' in {frames} frames' if frames > 1 else ''}, more than {max_pixels:,} in all.",
                        "Send a smaller image.",
                        details={"width": width, "height": height},
                    )
                image.load()
                return width, height
    except Image.DecompressionBombError as exc:
        raise TooLarge(
            "image_too_large", f"The image claims to be far larger than {max_pixels:,} pixels.", "Send a smaller image.", details={"reason": str(exc)[:200]}
        ) from None
    except TooLarge:
        raise
    except Exception as exc:  # decoders meet hostile bytes with errors of every kind
        raise Invalid(
            "image_undecodable", "The image could not be decoded.", "Send a complete PNG, JPEG or WebP file.", details={"reason": str(exc)[:200]}
        ) from None


_UNSAFE = re.compile(r"[^\w.\- ()]+")


def safe_name(name: str) -> str:
    """A file name without paths, control characters or tricks, at most 120 characters."""
    last = unicodedata.normalize("NFKC", name).replace("\\", "/").rsplit("/", 1)[-1]
    cleaned = _UNSAFE.sub("_", last).strip(". ")[-120:].lstrip(". ")
    return cleaned or "file"
