"""What every action of the console shares: who did it, from where, once, and what to say when it was refused."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from controlplane.console import once
from controlplane.kernel.errors import WorkflowError


def actor(request: HttpRequest) -> str:
    """The person, as the audit log names them."""
    return str(request.user.get_username())


def text(request: HttpRequest, name: str, *, most: int = 500) -> str:
    """What was typed into a field, without what no database keeps."""
    return str(request.POST.get(name, "")).replace("\x00", "").strip()[:most]


def reason(request: HttpRequest) -> str:
    return text(request, "reason")


def done(request: HttpRequest, act: Callable[[], str], *, back: str) -> HttpResponse:
    """Do it once, say what happened, and go back. A refusal is said in its own words."""
    if not once.first_time(request):
        messages.info(request, "That was done already; nothing was repeated.")
        return redirect(back)
    try:
        messages.success(request, act())
    except WorkflowError as refusal:
        messages.error(request, f"{refusal.message} {refusal.suggestion}")
    return redirect(back)


def number(text: str, *, whole: bool = True) -> float | None:
    """A number somebody typed, or None."""
    try:
        value = float(text.replace(",", "").strip())
    except ValueError:
        return None
    if value != value or abs(value) > 1e12 or (whole and not value.is_integer()):
        return None
    return value
