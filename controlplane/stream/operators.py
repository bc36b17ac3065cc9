"""Who looks at a stream of the console: the person behind the session cookie, staff only."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest

from controlplane.kernel.errors import Forbidden, Unauthenticated


def signed_in(session_key: str) -> Any:
    """The staff member of a session. Raises Unauthenticated, Forbidden. Blocking: call it in a thread."""
    request = HttpRequest()
    request.session = SessionStore(session_key[:64] or None)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        raise Unauthenticated("login_missing", "This address is for operators.", "Sign in to the console.")
    if not user.is_staff:
        raise Forbidden("role_missing", "This address is for staff.", "Ask an administrator.")
    return user


def session_of(cookies: Any) -> str:
    """The session key a request carries."""
    return str(cookies.get(settings.SESSION_COOKIE_NAME, ""))
