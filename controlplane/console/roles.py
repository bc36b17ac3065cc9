"""Who may do what. A role is a Django group; a superuser has them all.

Every signed-in staff member may look. Money is for account managers and administrators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.models import Group
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

ROLES = {
    "viewer": "May look at everything but money.",
    "operator": "May act on jobs and workers.",
    "fleet": "May change capacity.",
    "release": "May promote and roll back workflows.",
    "account": "May manage customers and see money.",
    "admin": "May do all of it.",
}

View = Callable[..., HttpResponseBase]


def ensure() -> None:
    """Make the groups that do not exist yet."""
    have = set(Group.objects.filter(name__in=ROLES).values_list("name", flat=True))
    Group.objects.bulk_create([Group(name=name) for name in ROLES if name not in have], ignore_conflicts=True)


def of(request: HttpRequest) -> frozenset[str]:
    """The roles of the person behind the request; read once a request."""
    known: frozenset[str] | None = getattr(request, "console_roles", None)
    if known is None:
        user = request.user
        if user.is_superuser:
            known = frozenset(ROLES)
        else:
            known = frozenset(user.groups.filter(name__in=ROLES).values_list("name", flat=True)) if user.is_authenticated else frozenset()
            if "admin" in known:
                known = frozenset(ROLES)
        request.console_roles = known  # type: ignore[attr-defined]
    return known


def may(request: HttpRequest, role: str) -> bool:
    """Whether the person has the role."""
    return role in of(request)


def sees_money(request: HttpRequest) -> bool:
    return may(request, "account")


def refuse(request: HttpRequest, role: str, what: str = "This") -> HttpResponse:
    """The page that names the role and who grants it."""
    return render(request, "console/refused.html", {"role": role, "what": what, "have": sorted(of(request))}, status=403)


def staff(view: View) -> View:
    """A console page: signed in, staff."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not request.user.is_staff:
            return render(request, "403.html", status=403)
        return view(request, *args, **kwargs)

    return guarded


def needs(role: str, what: str = "This") -> Callable[[View], View]:
    """A console page or action that wants a role."""

    def wrap(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not may(request, role):
                return refuse(request, role, what)
            return view(request, *args, **kwargs)

        return staff(guarded)

    return wrap
