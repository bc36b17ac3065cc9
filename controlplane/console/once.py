"""A POST form works once: its token is remembered in the session, so a double click or a reload repeats nothing."""

from __future__ import annotations

import secrets

from django.http import HttpRequest

KEPT = 50


def token() -> str:
    """A fresh token for one form."""
    return secrets.token_urlsafe(12)


def first_time(request: HttpRequest) -> bool:
    """Whether this form was not sent before. A form without a token counts as new."""
    given = request.POST.get("once", "")[:32]
    if not given:
        return True
    seen: list[str] = request.session.get("once", [])
    if given in seen:
        return False
    request.session["once"] = [*seen, given][-KEPT:]
    return True
