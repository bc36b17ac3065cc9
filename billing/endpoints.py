"""What every address that takes a customer's key has in common.

JSON out whatever was accepted (callers may ask for more, never for less), query parameters that are known or refused,
`RateLimit` fields on each answer, and refused POSTs that count against the requests of the minute.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import quotas
from billing.models import ApiKey, Customer
from controlplane.kernel import paging
from controlplane.kernel.errors import Invalid, WorkflowError

_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class AnswerJson(BaseContentNegotiation):
    """JSON is always acceptable; an endpoint that can answer otherwise looks at Accept itself."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class Endpoint(APIView):
    """A keyed address. Reads `self.customer`, `self.key` and `self.now`; answers with `self.answer`."""

    content_negotiation_class = AnswerJson
    http_method_names = ["get", "head", "post"]
    params: Collection[str] = ()
    standing: quotas.Standing | None = None
    now: datetime

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        self.now = timezone.now()
        return super().initialize_request(request, *args, **kwargs)

    @property
    def customer(self) -> Customer:
        """Who calls."""
        customer: Customer = self.request.user  # type: ignore[assignment]
        return customer

    @property
    def key(self) -> ApiKey:
        """The key they call with."""
        key: ApiKey = self.request.auth  # type: ignore[assignment]
        return key

    def answer(self, data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """`data` as JSON, never to be cached."""
        return HttpResponse(
            json.dumps(data, separators=(",", ":")), content_type="application/json", status=status, headers={"Cache-Control": "no-store", **(headers or {})}
        )

    def query(self) -> dict[str, str]:
        """The query parameters, each known and given once; raises Invalid otherwise."""
        given = self.request.query_params
        for name in given:
            if name not in self.params:
                known = f"It takes: {', '.join(sorted(self.params))}." if self.params else "It takes none."
                raise Invalid("unknown_parameter", f"There is no query parameter {name[:60]!r} here.", known, details={"field": name[:60]})
            if len(given.getlist(name)) > 1:
                raise Invalid("parameter_repeated", f"The query parameter {name} is given more than once.", "Give it once.", details={"field": name})
            if "\x00" in given[name]:
                raise parameter_invalid(name, "holds a NUL character", "Send clean text.")
        return given.dict()

    def next_link(self, params: Mapping[str, str], position: str) -> str:
        """The absolute address of the page after `position`."""
        return paging.link(self.request.build_absolute_uri(self.request.path), {k: v for k, v in params.items() if k != "cursor"}, position)

    def base_url(self) -> str:
        """Scheme and host the caller used."""
        return self.request.build_absolute_uri("/")[:-1]

    def require_room(self) -> None:
        """Refuse before a file is kept when no request of this minute is left. Counts nothing yet."""
        standing = self._standing()
        if standing is not None and standing.requests_left <= 0:
            self.standing = quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)

    def handle_exception(self, exc: Exception) -> Response:
        if self.request.method == "POST" and isinstance(exc, WorkflowError) and exc.status < 500 and exc.code != "requests_limit" and self._known():
            try:
                self.standing = quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)
            except WorkflowError as too_many:
                exc = too_many
        return super().handle_exception(exc)

    def finalize_response(self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        if self._known() and not response.has_header("RateLimit"):
            standing = self.standing or self._standing()
            if standing is not None:
                for name, value in standing.headers().items():
                    response[name] = value
        return super().finalize_response(request, response, *args, **kwargs)  # type: ignore[arg-type]

    def _known(self) -> bool:
        return isinstance(getattr(self.request, "_user", None), Customer)

    def _standing(self) -> quotas.Standing | None:
        try:
            account = self.customer.account
        except ObjectDoesNotExist:
            return None
        return quotas.standing(account, self.customer.plan_revision, now=self.now)


def moment(params: Mapping[str, str], name: str) -> datetime | None:
    """The time a query parameter gives: RFC 3339, or a date, which is its first moment in UTC. Times nobody can mean become the nearest one."""
    text = params.get(name)
    if text is None:
        return None
    text = text.replace(" ", "+") if "T" in text or "t" in text else text
    try:
        at = parse_datetime(text) if len(text) > 10 else None
        day = parse_date(text) if at is None and len(text) == 10 else None
    except ValueError:
        at = day = None
    found = at if at is not None else datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None
    if found is None:
        raise parameter_invalid(name, "is not a time", "Send a date such as 2026-03-02, or RFC 3339 such as 2026-03-02T12:00:00Z.")
    if not 2000 <= found.year < 2100:  # nothing happened there, and not every database counts that far
        return _EARLIEST if found.year < 2000 else _LATEST
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def parameter_invalid(name: str, what: str, suggestion: str) -> Invalid:
    """The refusal of one query parameter."""
    return Invalid("parameter_invalid", f"The query parameter {name} {what}.", suggestion, details={"field": name})
