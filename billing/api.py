"""What a customer used and what is left: /v1/usage and /v1/limits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request

from billing import quotas, usage
from billing.endpoints import Endpoint, moment, parameter_invalid
from billing.models import UsageEntry
from controlplane.kernel import money, paging
from controlplane.kernel.ids import parse_uuid

MOST_DAYS = 400
COLUMNS = (
    "id",
    "job",
    "workflow",
    "version",
    "meter",
    "quantity",
    "unit_price_usd",
    "amount_usd",
    "outcome",
    "failure_class",
    "revision",
    "reverses",
    "booked_at",
)

_USD = {"type": "string", "pattern": r"^-?\d+\.\d{2,6}$"}
_DECIMAL = {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}
_UUID = {"type": "string", "format": "uuid"}
_WHEN = {"type": "string", "format": "date-time"}


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SHAPES: dict[str, Any] = {
    "UsageEntry": _record(
        {
            "id": _UUID,
            "job": _UUID,
            "workflow": {"type": "string"},
            "version": {"type": "integer"},
            "meter": {"type": "string", "enum": list(UsageEntry.Meter.values)},
            "quantity": _DECIMAL,
            "unit_price_usd": {**_DECIMAL, "description": "Per unit, before rounding to micro-dollars"},
            "amount_usd": _USD,
            "outcome": {"type": "string"},
            "failure_class": {"type": "string", "description": "Empty when it succeeded"},
            "revision": {"type": "integer"},
            "reverses": {"type": ["string", "null"], "format": "uuid", "description": "The line this one takes back"},
            "booked_at": _WHEN,
        }
    ),
    "UsageTotal": _record(
        {"day": {"type": "string", "format": "date"}, "workflow": {"type": "string"}, "jobs": {"type": "integer"}, "gpu_seconds": _DECIMAL, "amount_usd": _USD}
    ),
    "UsagePage": _record(
        {
            "from": _WHEN,
            "to": _WHEN,
            "amount_usd": {**_USD, "description": "Sum of every line of the range"},
            "totals": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/UsageTotal"},
                "description": "By day (UTC) and workflow; they add up to amount_usd",
            },
            "results": {"type": "array", "items": {"$ref": "#/components/schemas/UsageEntry"}},
            "next": {"type": ["string", "null"], "format": "uri"},
        }
    ),
    "Limits": _record(
        {
            "plan": {"type": "string"},
            "requests": _record(
                {"limit": {"type": "integer"}, "left": {"type": "integer"}, "window_s": {"type": "integer"}, "resets_in_s": {"type": "integer"}}
            ),
            "active_jobs": _record({"limit": {"type": "integer"}, "left": {"type": "integer"}}),
            "month": _record({"limit_usd": _USD, "spent_usd": _USD, "reserved_usd": _USD, "left_usd": _USD, "resets_at": _WHEN}),
            "prices": _record({"per_job_usd": _DECIMAL, "per_gpu_second_usd": _DECIMAL}),
            "max_priority": {"type": "string", "enum": ["low", "normal", "high"]},
            "max_file_bytes": {"type": "integer"},
            "max_body_bytes": {"type": "integer"},
        }
    ),
}


class Usage(Endpoint):
    """The caller's ledger."""

    scopes = {"GET": "usage:read"}
    params = ("from", "to", "limit", "cursor", "format")

    @extend_schema(
        operation_id="listUsage",
        summary="List what was used",
        description="Ledger lines, newest first, with totals of the whole range. As CSV (`Accept: text/csv` or `format=csv`): every line, oldest first.",
        tags=["usage"],
        parameters=[
            OpenApiParameter(
                "from",
                {"type": "string", "format": "date-time"},
                description="Booked then or later; a date is its first moment in UTC. Without it: this month.",
            ),
            OpenApiParameter("to", {"type": "string", "format": "date-time"}, description="Booked before then. Without it: now."),
            OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, description="Lines a page."),
            OpenApiParameter("cursor", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,300}$"}, description="From the address in next; opaque."),
            OpenApiParameter("format", {"type": "string", "enum": ["json", "csv"]}, description="The form of the answer."),
        ],
        responses={
            (200, "application/json"): OpenApiResponse({"$ref": "#/components/schemas/UsagePage"}, description="A page of lines."),
            (200, "text/csv"): OpenApiResponse({"type": "string"}, description="All lines."),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        asked = self.query()
        since, until = self._range(asked)
        form = asked.get("format")
        if form not in (None, "json", "csv"):
            raise parameter_invalid("format", "is not a form we answer in", "Use json or csv.")
        size = paging.size(asked.get("limit"), default=100, most=1000)
        entries = usage.entries_of(self.customer.id, since=since, until=until)
        cursor = asked.get("cursor")
        after = _before(cursor) if cursor is not None else None
        if form == "csv" or (form is None and request.headers.get("Accept", "").lower().startswith("text/csv")):
            name = f"usage-{since:%Y-%m-%d}-{until:%Y-%m-%d}.csv"
            return StreamingHttpResponse(
                _csv(usage.oldest_first(entries)),
                content_type="text/csv; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store", "Vary": "Accept"},
            )
        rows = entries.order_by("-booked_at", "-id")
        if after is not None:
            rows = rows.filter(after)
        found = list(rows[: size + 1])
        page = found[:size]
        totals = usage.totals(entries)
        last = page[-1] if len(found) > size else None
        fixed = {**asked, "from": _stamp(since), "to": _stamp(until)}
        return self.answer(
            {
                "from": _stamp(since),
                "to": _stamp(until),
                "amount_usd": money.to_usd(sum(t.amount_microusd for t in totals)),
                "totals": [
                    {
                        "day": f"{t.day}",
                        "workflow": t.workflow,
                        "jobs": t.jobs,
                        "gpu_seconds": _plain(t.gpu_seconds),
                        "amount_usd": money.to_usd(t.amount_microusd),
                    }
                    for t in totals
                ],
                "results": [shape(entry) for entry in page],
                "next": self.next_link(fixed, f"{last.booked_at.isoformat()} {last.id}") if last else None,
            },
            headers={"Vary": "Accept"},
        )

    def _range(self, asked: dict[str, str]) -> tuple[datetime, datetime]:
        until = moment(asked, "to") or self.now
        since = moment(asked, "from") or until.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if since > until:
            raise parameter_invalid("from", "lies after to", "Give an earlier time.")
        if until - since > timedelta(days=MOST_DAYS):
            raise parameter_invalid("from", f"lies more than {MOST_DAYS} days before to", "Ask for a shorter range.")
        return since, until


class Limits(Endpoint):
    """What the caller may still do."""

    scopes = {"GET": "usage:read"}

    @extend_schema(
        operation_id="getLimits",
        summary="See what is left",
        tags=["usage"],
        responses={200: OpenApiResponse({"$ref": "#/components/schemas/Limits"}, description="Limits of the plan, and what is left of them.")},
    )
    def get(self, request: Request) -> HttpResponse:
        self.query()
        plan = self.customer.plan_revision
        account = quotas.open_account(self.customer.id, now=self.now)
        at = quotas.standing(account, plan, now=self.now)
        self.standing = at
        spent = account.settled_microusd if account.period == quotas.period_of(self.now) else 0
        return self.answer(
            {
                "plan": plan.plan.name,
                "requests": {"limit": at.requests_limit, "left": at.requests_left, "window_s": 60, "resets_in_s": at.reset_s},
                "active_jobs": {"limit": at.active_limit, "left": at.active_left},
                "month": {
                    "limit_usd": money.to_usd(at.money_limit_microusd),
                    "spent_usd": money.to_usd(spent),
                    "reserved_usd": money.to_usd(account.reserved_microusd),
                    "left_usd": money.to_usd(at.money_left_microusd),
                    "resets_at": _stamp(quotas.next_period(self.now)),
                },
                "prices": {
                    "per_job_usd": _plain(plan.price_per_job_microusd / money.MICRO),
                    "per_gpu_second_usd": _plain(plan.price_per_gpu_second_microusd / money.MICRO),
                },
                "max_priority": plan.max_priority,
                "max_file_bytes": settings.MAX_FILE_BYTES,
                "max_body_bytes": settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
            }
        )


def shape(entry: UsageEntry) -> dict[str, Any]:
    """One ledger line as its customer sees it."""
    return {
        "id": str(entry.id),
        "job": str(entry.job_id),
        "workflow": entry.workflow_slug,
        "version": entry.version_number,
        "meter": entry.meter,
        "quantity": _plain(entry.quantity),
        "unit_price_usd": _plain(entry.unit_price_microusd / money.MICRO),
        "amount_usd": money.to_usd(entry.amount_microusd),
        "outcome": entry.outcome,
        "failure_class": entry.failure_class,
        "revision": entry.revision,
        "reverses": str(entry.reverses_id) if entry.reverses_id else None,
        "booked_at": _stamp(entry.booked_at),
    }


def _before(cursor: str) -> Q:
    at, _, last = paging.decode(cursor).partition(" ")
    last_id = parse_uuid(last)
    try:
        booked = datetime.fromisoformat(at)
    except ValueError:
        raise paging.bad_cursor() from None
    if booked.tzinfo is None or last_id is None:
        raise paging.bad_cursor()
    return Q(booked_at__lt=booked) | Q(booked_at=booked, id__lt=last_id)


def _csv(entries: Iterable[UsageEntry]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    for entry in entries:
        if line.tell() > 60_000:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
        said = shape(entry)
        writer.writerow(["" if said[name] is None else said[name] for name in COLUMNS])
    yield line.getvalue()


def _plain(value: Any) -> str:
    """A decimal without exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
