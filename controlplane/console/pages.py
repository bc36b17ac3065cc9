"""How a console page is answered: the shell's context, live fragments with an ETag, CSV, and cursors.

A page with a live region names its fragment template. htmx asks the page's own address again with
HX-Request and gets only the fragment, or 304 when nothing changed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone

from controlplane.console import ranges, roles

PAGE_SIZE = 50
# New in every answer though nothing changed; the ones already in the page stay good.
_VOLATILE = re.compile(r'<input type="hidden" name="(?:csrfmiddlewaretoken|once)" value="[^"]*">')
_RANGE_KEYS = ("from", "to", "cursor")


def page(
    request: HttpRequest,
    template: str,
    context: dict[str, Any],
    *,
    title: str,
    active: str,
    crumbs: Sequence[tuple[str, str]] = (),
    span: ranges.Range | None = None,
    fragment: str = "",
    csv_href: str = "",
    now: datetime | None = None,
    status: int = 200,
) -> HttpResponse:
    """The whole page, or only its live fragment when htmx asks."""
    shell: dict[str, Any] = {
        "title": title,
        "active": active,
        "crumbs": crumbs or [(title, "")],
        "live": bool(fragment),
        "live_url": request.get_full_path(),
        "now": now or timezone.now(),
        "roles": roles.of(request),
        "money": roles.sees_money(request),
        "csv": csv_href,
        **_range_context(request, span),
        **context,
    }
    if fragment and request.headers.get("HX-Request") == "true":
        return tagged(request, render_to_string(fragment, shell, request=request))
    return render(request, template, shell, status=status)


def _range_context(request: HttpRequest, span: ranges.Range | None) -> dict[str, Any]:
    if span is None:
        return {}
    own = _RANGE_KEYS if span.ahead is None else (*_RANGE_KEYS, "ahead")
    kept = [(k, v) for k in request.GET if k not in own for v in request.GET.getlist(k)]
    return {
        "range": span,
        "range_quick": ranges.QUICK,
        "range_kept": kept,
        "range_rest": f"&{urlencode(kept)}" if kept else "",
        "range_earlier": span.shifted(-1),
        "range_later": span.shifted(1),
    }


def tagged(request: HttpRequest, body: str, *, content_type: str = "text/html; charset=utf-8") -> HttpResponse:
    """The body under an ETag; 304 when the browser has it already."""
    etag = f'"{hashlib.sha256(_VOLATILE.sub("", body).encode()).hexdigest()[:24]}"'
    response: HttpResponse = HttpResponseNotModified() if request.headers.get("If-None-Match") == etag else HttpResponse(body, content_type=content_type)
    response["ETag"] = etag
    response["Cache-Control"] = "no-cache, private"
    response["Vary"] = "Cookie, HX-Request"
    return response


def series(request: HttpRequest, charts: list[dict[str, Any]]) -> HttpResponse:
    """series.json: the page's charts with the same query string."""
    return tagged(request, JsonResponse({"charts": charts}).content.decode(), content_type="application/json")


# -- parts that may fail alone -------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """A part of a page that could not be read; the rest stands."""

    error_id: str
    failed: bool = True


def part(request: HttpRequest, read: Callable[[], Any]) -> Any:
    """What `read` gives, or a `Failed` that its card shows; the error is logged under the request id."""
    try:
        return read()
    except Exception:  # one card must not take the page down, whatever broke in it
        logging.getLogger("comfyplane.console").exception("part of a page failed", extra={"path": request.path})
        return Failed(error_id=getattr(request, "request_id", "")[-8:])


# -- CSV -----------------------------------------------------------------------------------------


class _Echo:
    def write(self, value: str) -> str:
        return value


def csv_file(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    """All rows of the filter: ISO 8601 UTC times, raw numbers, units in the header. Cells cannot be formulas."""
    writer = csv.writer(_Echo())

    def lines() -> Iterator[str]:
        yield writer.writerow(header)
        for row in rows:
            yield writer.writerow([_cell(v) for v in row])

    response = StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


# -- cursors -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """One page of a long list."""

    rows: list[Any]
    next: str = ""
    first: str = ""

    @property
    def shown(self) -> int:
        return len(self.rows)


def cursor(request: HttpRequest) -> list[Any] | None:
    """The keys after which this page starts; None on the first page or when the cursor is nonsense."""
    given = request.GET.get("cursor", "")[:400]
    if not given:
        return None
    try:
        keys = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
    except ValueError:
        return None
    return keys if isinstance(keys, list) else None


def cut(request: HttpRequest, rows: list[Any], keys: Callable[[Any], list[Any]], *, size: int = PAGE_SIZE) -> Slice:
    """A page from `size + 1` rows read: the one too many tells there is a next."""
    query = request.GET.copy()
    paged = query.pop("cursor", None)
    first = f"?{query.urlencode()}" if paged else ""
    if len(rows) <= size:
        return Slice(rows, first=first)
    query["cursor"] = base64.urlsafe_b64encode(json.dumps(keys(rows[size - 1])).encode()).decode().rstrip("=")
    return Slice(rows[:size], next=f"?{query.urlencode()}", first=first)
