"""What a server's answer to a request for bytes means. Pure, save that it reads headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

from fleet.agent.store.failures import Gone, Refused, StoreError, Unauthorized

TRANSIENT = (408, 409, 423, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524)
MAX_RETRY_AFTER_S = 30.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


Headers = Mapping[str, str] | Message


class Again(Exception):
    """Worth another try, not before `wait_s`."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Changed(Exception):
    """The bytes on offer are not those that were begun with."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A body that starts at byte `start`. `ranged` when parts can be asked for; `size` None when the server does not tell."""

    start: int
    size: int | None
    ranged: bool
    validator: str
    page: bool  # a web page, which is what sites send that want a login


def offer(status: int, headers: Headers, shown: str) -> Offer:
    """The body that comes. Raises Again, Changed (range not satisfiable) or a StoreError."""
    if status not in (200, 206):
        raise failure(status, headers, shown)
    if (headers.get("Content-Encoding") or "identity").strip().lower() not in ("", "identity"):
        raise Refused(f"{shown} is served compressed although it was not asked to be.", "Serve the file as it is.", code="model_encoded", url=shown)
    page = (headers.get("Content-Type") or "").lower().startswith(("text/html", "application/xhtml"))
    if status == 206:
        found = _CONTENT_RANGE.fullmatch((headers.get("Content-Range") or "").strip())
        if found is None:
            raise Again("a partial answer that does not tell its range and size")
        return Offer(int(found[1]), int(found[3]), True, validator(headers), page)
    length = headers.get("Content-Length") or ""
    return Offer(0, int(length) if length.isdigit() else None, False, validator(headers), page)


def failure(status: int, headers: Headers, shown: str) -> Exception:
    """What an answer without bytes means."""
    if status == 416:
        return Changed(f"{shown} has not as many bytes as before")
    if status in TRANSIENT:
        after = (headers.get("Retry-After") or "").strip()
        return Again(f"status {status}", min(float(after), MAX_RETRY_AFTER_S) if after.isdigit() else 0.0)
    if status in (401, 403, 407):
        return Unauthorized(f"{shown} answered {status}: it wants a credential, or another one.", url=shown, status=status)
    if status in (404, 410, 451):
        return Gone(f"{shown} answered {status}: the file is not there.", url=shown, status=status)
    return StoreError(f"{shown} answered {status}.", "Check the address.", code="model_source_failed", url=shown, status=status)


def validator(headers: Headers) -> str:
    """What If-Range may name: a strong ETag, else the date of the last change."""
    tag = (headers.get("ETag") or "").strip()
    if tag.startswith('"') and tag.endswith('"') and len(tag) > 2:
        return tag
    return (headers.get("Last-Modified") or "").strip()
