"""Hand out an output's bytes: ranges, validators, and headers that keep a customer's file from ever running as a page.

The same answer serves the console and the customer API; who may see the output is decided before it gets here.
Only images, audio and video of well-known types open in the browser; everything else is a download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header, parse_etags, quote_etag

from controlplane.kernel import blobs, envelope, errors
from fleet.models import Output

CHUNK_BYTES = 256 * 1024
INLINE = frozenset(
    {
        *("image/png", "image/apng", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp"),
        *("audio/mpeg", "audio/flac", "audio/ogg", "audio/wav", "audio/x-wav", "audio/mp4", "audio/aac", "audio/webm"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime"),
    }
)
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_UNSAFE_IN_NAME = re.compile(r"[\x00-\x1f\x7f]")


def respond(request: HttpRequest, output: Output) -> HttpResponseBase:
    """The bytes of `output`: 200, 206, 304 or 416, for GET and HEAD."""
    etag = quote_etag(output.blob_id)
    size = output.size_bytes
    headers = _headers(output, etag=etag)
    if _not_modified(request, etag):
        return HttpResponse(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control", "Content-Security-Policy")})
    wanted = _wanted_range(request, etag=etag, size=size)
    if wanted == "unsatisfiable":
        return envelope.render(
            errors.RangeNotSatisfiable(
                "range_not_satisfiable",
                f"The file has {size} bytes; the range asked for lies outside of it.",
                "Ask for a range inside the file, or for the whole file without a Range header.",
                details={"size_bytes": size},
                headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
            ),
            request,
        )
    start, end, status = (wanted[0], wanted[1], 206) if isinstance(wanted, tuple) else (0, size - 1, 200)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    headers["Content-Length"] = str(end - start + 1)
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    try:
        stream = blobs.open(output.blob_id)
    except errors.NotFound:
        raise errors.Gone("output_gone", "The bytes of this output are no longer kept.", "Run the job again.") from None
    return StreamingHttpResponse(_Part(stream, start=start, length=end - start + 1), status=status, headers=headers)


def opens_in_browser(media_type: str) -> bool:
    """Whether a browser may show this type in place of saving it."""
    return media_type.partition(";")[0].strip().lower() in INLINE


def _headers(output: Output, *, etag: str) -> dict[str, Any]:
    declared = output.media_type.partition(";")[0].strip().lower()
    media_type = declared if _MEDIA_TYPE.fullmatch(declared) else "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    name = _UNSAFE_IN_NAME.sub("", output.name.replace("\\", "/").rpartition("/")[2]) or f"output-{output.index}"
    return {
        "Content-Type": media_type,
        "Content-Disposition": content_disposition_header(not opens_in_browser(declared), name) or "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, max-age=3600",
    }


def _not_modified(request: HttpRequest, etag: str) -> bool:
    known = [tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))]
    return etag in known or "*" in known


def _wanted_range(request: HttpRequest, *, etag: str, size: int) -> tuple[int, int] | str | None:
    """First and last byte asked for; None is the whole file, as for anything we do not serve in parts."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if not match or match.groups() == ("", "") or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
        if last and int(last) < int(first):
            return None
    return (start, end) if start <= end and start < size else "unsatisfiable"


class _Part:
    """An iterable over a slice of a stream that closes the stream even when nobody reads it."""

    def __init__(self, stream: BinaryIO, *, start: int, length: int) -> None:
        self._stream, self._start, self._length = stream, start, length

    def __iter__(self) -> Iterator[bytes]:
        if self._start:
            self._stream.seek(self._start)
        left = self._length
        while left > 0 and (chunk := self._stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._stream.close()
