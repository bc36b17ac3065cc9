"""Quotes over HTTP: ask, list, look, announce, withdraw."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q
from django.http import HttpResponse
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing import quotas
from billing.endpoints import Endpoint
from controlplane.kernel import jsonbody, paging
from controlplane.kernel.errors import Invalid, UnsupportedMedia
from controlplane.kernel.ids import parse_uuid
from fleet import admission, choices, quotes, releases
from fleet.api import bodies, quotes_described
from fleet.api.jobs import idempotency_key
from fleet.models import Quote

_FIELDS = ("workflow", "jobs", "inputs", "starts_at", "announce")


class QuoteEndpoint(Endpoint):
    """Answers with a quote."""

    http_method_names = ["get", "head", "post", "delete"]

    def shown(self, quote: Quote, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
        """`quote` as JSON."""
        return self.answer(quotes.as_json(quote, now=self.now), status=status, headers=headers)

    def count(self) -> None:
        """One more request of the minute."""
        self.standing = quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)


class Quotes(QuoteEndpoint):
    """The caller's quotes; ask for one."""

    http_method_names = ["get", "head", "post"]
    scopes = {"POST": "jobs:write"}
    params: Collection[str] = ("limit", "cursor")

    @extend_schema(**quotes_described.LIST)
    def get(self, request: Request) -> HttpResponse:
        asked = self.query()
        size = paging.size(asked.get("limit"))
        found = quotes.of_customer(self.customer)
        if (cursor := asked.get("cursor")) is not None:
            at, quote_id = _position(paging.decode(cursor))
            found = found.filter(Q(created_at__lt=at) | Q(created_at=at, id__lt=quote_id))
        rows = list(found[: size + 1])
        page = rows[:size]
        return self.answer(
            {
                "results": [quotes.as_json(quote, now=self.now) for quote in page],
                "next": self.next_link(asked, f"{page[-1].created_at.isoformat()} {page[-1].id}") if len(rows) > size else None,
            }
        )

    @extend_schema(**quotes_described.CREATE)
    def post(self, request: Request) -> HttpResponse:
        self.params = ()  # those of the list are not for asking
        self.query()
        body = _body(request)
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        jobs, announce, starts_at = _jobs(body), _flag(body.get("announce", False)), _moment(body.get("starts_at"))
        workflow, version = releases.offered(_slug(body))
        self.require_room()
        if "inputs" in body:
            choices.check(version, body["inputs"], customer=self.customer)
        made = quotes.make(
            customer=self.customer,
            workflow=workflow,
            version=version,
            jobs=jobs,
            starts_at=starts_at,
            announce=announce,
            idempotency_key=key,
            body_sha256=quotes.digest(body) if key else "",
            now=self.now,
        )
        self.count()
        headers = {"Location": f"{self.base_url()}/v1/quotes/{made.quote.id}"}
        if made.replayed:
            return self.shown(made.quote, headers={**headers, "Idempotency-Replayed": "true"})
        return self.shown(made.quote, status=201, headers=headers)


class OneQuote(QuoteEndpoint):
    """One of the caller's quotes."""

    http_method_names = ["get", "head"]

    @extend_schema(**quotes_described.GET)
    def get(self, request: Request, quote: str) -> HttpResponse:
        self.query()
        return self.shown(quotes.one(self.customer, quote))


class Announce(QuoteEndpoint):
    """Announce the batch of a quote, or withdraw it."""

    http_method_names = ["post", "delete"]
    scopes = {"POST": "jobs:write", "DELETE": "jobs:write"}

    @extend_schema(**quotes_described.ANNOUNCE)
    def post(self, request: Request, quote: str) -> HttpResponse:
        self.query()
        done = quotes.announce(quotes.one(self.customer, quote), customer=self.customer, now=self.now)
        self.count()
        return self.shown(done)

    @extend_schema(**quotes_described.WITHDRAW)
    def delete(self, request: Request, quote: str) -> HttpResponse:
        self.query()
        done = quotes.withdraw(quotes.one(self.customer, quote), customer=self.customer, now=self.now)
        self.count()
        return self.shown(done)


def _body(request: Request) -> dict[str, Any]:
    kind = request._request.content_type or ""
    if kind != "application/json" and (kind or bodies.length(request._request)):
        raise UnsupportedMedia("unsupported_media_type", "A quote is asked for in JSON.", "Send 'Content-Type: application/json'.")
    body = jsonbody.load(bodies.raw_body(request._request))
    jsonbody.only(body, _FIELDS)
    return body


def _slug(body: dict[str, Any]) -> str:
    given = body.get("workflow")
    if given is None:
        raise Invalid("missing_field", "workflow is missing.", "Send the id of a workflow.", details={"field": "workflow"})
    if not isinstance(given, str):
        raise Invalid("wrong_type", "workflow must be text.", "Send the id of a workflow.", details={"field": "workflow"})
    if not given:
        raise admission.unknown_workflow(given)
    return given


def _jobs(body: dict[str, Any]) -> int:
    given = body.get("jobs")
    if given is None:
        raise Invalid("missing_field", "jobs is missing.", "Say how many.", details={"field": "jobs"})
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if type(given) is not int:
        raise Invalid("wrong_type", "jobs must be a whole number.", "Say how many.", details={"field": "jobs"})
    return given


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise Invalid("wrong_type", "announce must be true or false.", "Leave it out to announce nothing.", details={"field": "announce"})
    return given


def _moment(given: Any) -> datetime | None:
    if given is None:
        return None
    at = None
    if isinstance(given, str) and len(given) < 64:
        try:
            at = parse_datetime(given.replace("t", "T").replace("z", "Z"))
            at = at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at.astimezone(UTC) if at is not None else None
        except (ValueError, OverflowError):
            at = None
    if at is None:
        raise Invalid("wrong_type", "starts_at must be a time.", "Send RFC 3339 such as 2026-03-02T12:00:00Z.", details={"field": "starts_at"})
    return at


def _position(text: str) -> tuple[datetime, Any]:
    moment, _, quote_id = text.partition(" ")
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        raise paging.bad_cursor() from None
    found = parse_uuid(quote_id)
    if found is None or at.tzinfo is None:
        raise paging.bad_cursor()
    return at, found
