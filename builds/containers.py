"""Files that carry a workflow inside: pictures saved by ComfyUI, and comfy-pack archives.

A picture holds two texts, `prompt` (what ran, API format) and `workflow` (the canvas); an archive holds
the same two as files. Both come from strangers: sizes are bounded before anything is unpacked.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from controlplane.kernel.errors import Invalid, Malformed, TooLarge

PNG = b"\x89PNG\r\n\x1a\n"
ZIP = b"PK\x03\x04"
MAX_TEXT = 4_000_000
_OTHERS = (
    (b"RIFF", "a WebP or WAV file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "a gzip file"),
    (b"fLaC", "a FLAC file"),
)
_EXPORT = "In ComfyUI open the file, save the workflow and import that."


def is_container(data: bytes) -> bool:
    """Whether `data` is no JSON text but a file of another kind that is known here."""
    return data.startswith((PNG, ZIP)) or any(data.startswith(start) for start, _ in _OTHERS)


def document_in(data: bytes) -> dict[str, Any]:
    """`{"prompt": …, "workflow": …}`, as far as they are there, out of a picture or an archive."""
    if data.startswith(PNG):
        found = {name: text for name, text in _png_texts(data) if name in ("prompt", "workflow")}
        if not found:
            raise Invalid(
                "picture_without_workflow", "This picture holds no ComfyUI workflow; other programs may have removed it.", "Import the workflow file itself."
            )
        return {name: _json(text, where=f"The text {name!r} in the picture") for name, text in found.items()}
    if data.startswith(ZIP):
        return _archive(data)
    kind = next((said for start, said in _OTHERS if data.startswith(start)), "a file of another kind")
    raise Invalid("container_not_supported", f"This is {kind}; workflows are read from JSON, PNG and comfy-pack files only.", _EXPORT)


def _png_texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Keyword and text of every text chunk, in all three spellings."""
    at = len(PNG)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or len(body) < size:
            continue
        keyword, _, rest = body.partition(b"\x00")
        packed = kind == b"zTXt"
        if kind == b"zTXt":
            rest = rest[1:]
        elif kind == b"iTXt":
            packed = rest[:1] == b"\x01"
            rest = rest[2:].partition(b"\x00")[2].partition(b"\x00")[2]
        if keyword in (b"prompt", b"workflow"):
            text = _inflated(rest) if packed else rest
            # Plain text chunks are Latin-1 by their standard, and UTF-8 by many writers; JSON escapes make both the same.
            yield keyword.decode(), text


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_TEXT + 1)
    except zlib.error as error:
        raise Malformed("picture_damaged", "A packed text in the picture is damaged.", _EXPORT) from error
    return _bounded(text)


def _archive(data: bytes) -> dict[str, Any]:
    """The two graphs of a comfy-pack archive; the lock inside is read elsewhere."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if not names & {"workflow.json", "workflow_api.json"}:
                raise Invalid("archive_without_workflow", "This archive holds no workflow.json, so it is no comfy-pack.", "Import the workflow file itself.")
            found: dict[str, Any] = {}
            for key, name in (("prompt", "workflow_api.json"), ("workflow", "workflow.json")):
                if name in names:
                    with archive.open(name) as member:
                        found[key] = _json(_bounded(member.read(MAX_TEXT + 1)), where=f"{name} in the archive")
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError) as error:
        raise Malformed("archive_damaged", "The archive cannot be unpacked.", "Pack it again, without a password.") from error


def _bounded(text: bytes) -> bytes:
    if len(text) > MAX_TEXT:
        raise TooLarge("graph_too_large", f"The workflow inside is larger than {MAX_TEXT:,} bytes.", "Upload files as files; the graph should only name them.")
    return text


def _json(text: bytes, *, where: str) -> Any:
    for encoding in ("utf-8", "latin-1"):
        try:
            return json.loads(text.decode(encoding))
        except UnicodeDecodeError:
            continue
        except (ValueError, RecursionError) as error:
            raise Malformed("invalid_json", f"{where} is not JSON.", _EXPORT) from error
    raise Malformed("invalid_json", f"{where} is not text.", _EXPORT)
