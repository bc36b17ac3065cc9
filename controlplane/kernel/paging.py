"""Cursor paging, newest first: a page walks a unique, ordered key, so it costs the same at any depth and never skips a row.

A cursor is opaque to callers and holds nothing but where the last page ended; what may be seen is decided by the query it is used on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import urlencode

from controlplane.kernel.errors import Invalid

DEFAULT = 20
MOST = 100


def size(text: str | None, *, default: int = DEFAULT, most: int = MOST) -> int:
    """The page size asked for with `limit`."""
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise Invalid(
            "limit_out_of_range", f"limit must be a whole number from 1 to {most}.", "Ask for fewer rows and follow next.", details={"field": "limit"}
        )
    return int(text)


def encode(position: str) -> str:
    """The cursor of a page that begins after `position`."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Where the page of `cursor` begins; raises Invalid when it is none of ours."""
    try:
        if len(cursor) > 300 or not cursor.isascii():
            raise ValueError
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise bad_cursor() from None
    if encode(text) != cursor:
        raise bad_cursor()
    return text


def bad_cursor() -> Invalid:
    """The refusal of a cursor nobody gave out."""
    return Invalid(
        "cursor_invalid",
        "There is no page at this cursor.",
        "Use the address in next as it is, or start without a cursor.",
        details={"field": "cursor"},
    )


def link(base: str, params: Mapping[str, str], position: str) -> str:
    """The address of the next page."""
    return f"{base}?{urlencode({**params, 'cursor': encode(position)})}"
