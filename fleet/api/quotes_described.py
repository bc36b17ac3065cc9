"""What the OpenAPI document says of quotes."""

from __future__ import annotations

from typing import Any

from fleet.api.shapes import CURSOR, LIMIT, SLUG_SCHEMA, USD, UUID, WHEN, listed, nullable, once, path, record, ref, response
from fleet.quotes import MOST_JOBS

QUOTE = path("quote", UUID, "The quote's id.")
_COUNT = {"type": "integer", "minimum": 0}

SHAPES: dict[str, Any] = {
    "Quote": record(
        {
            "id": UUID,
            "workflow": {"type": "string"},
            "version": {"type": "integer", "minimum": 1},
            "jobs": {"type": "integer", "minimum": 1},
            "starts_at": {**WHEN, "description": "When all of them are sent"},
            "price_usd": {**USD, "description": "Expected for all of them"},
            "most_usd": {**USD, "description": "The most that is reserved and charged for them, by what is measured now"},
            "finish_p50_at": {**WHEN, "description": "Done by then in half of the simulations"},
            "finish_p90_at": {**WHEN, "description": "Done by then in nine of ten"},
            "basis": record(
                {
                    "jobs_ahead": {**_COUNT, "description": "Waiting jobs that go before; turns are taken with those of others"},
                    "seconds_per_job": nullable({"type": "number", "minimum": 0, "description": "Measured mean; null when nothing was"}),
                    "measured_runs": {**_COUNT, "description": "Runs that rests on"},
                    "simulations": {"type": "integer", "minimum": 1},
                    "notes": {"type": "array", "items": {"type": "string"}},
                },
                closed=True,
            ),
            "limits": {
                "type": "array",
                "description": "Limits of your plan that the batch passes as a whole",
                "items": record({"limit": {"type": "string", "enum": ["active_jobs", "month"]}, "allowed": {}, "message": {"type": "string"}}, closed=True),
            },
            "announced": {"type": "boolean", "description": "Whether workers are made ready for it"},
            "created_at": WHEN,
            "expires_at": {**WHEN, "description": "Until then it can be announced"},
            "expired": {"type": "boolean"},
        },
        closed=True,
    ),
    "QuotePage": listed("Quote"),
    "QuoteRequest": record(
        {
            "workflow": {**SLUG_SCHEMA, "description": "The workflow's id"},
            "jobs": {"type": "integer", "minimum": 1, "maximum": MOST_JOBS, "description": "How many"},
            "inputs": {"type": "object", "description": "Checked as a job's would be; nothing runs"},
            "starts_at": nullable({**WHEN, "description": "When they will be sent; now unless said, at most 30 days ahead"}),
            "announce": {"type": "boolean", "default": False, "description": "Tell the fleet, so that workers are ready"},
        },
        closed=True,
        required=["workflow", "jobs"],
    ),
}

CREATE: dict[str, Any] = {
    "operation_id": "createQuote",
    "summary": "Ask what a batch would cost and when it would be done",
    "description": (
        "The workers are played forward from how they stand now, with the batch added, many times over. Nothing runs and nothing is reserved. "
        "With announce, workers are made ready; that needs the money to be within what is left of the month's limit."
    ),
    "tags": ["quotes"],
    "parameters": [once("quote")],
    "request": {"application/json": ref("QuoteRequest")},
    "responses": {201: response(ref("Quote"), "The quote."), 200: response(ref("Quote"), "The quote made before with this key.")},
}
LIST: dict[str, Any] = {
    "operation_id": "listQuotes",
    "summary": "List quotes",
    "description": "Newest first.",
    "tags": ["quotes"],
    "parameters": [LIMIT, CURSOR],
    "responses": {200: response(ref("QuotePage"), "A page of quotes.")},
}
GET: dict[str, Any] = {
    "operation_id": "getQuote",
    "summary": "Look at a quote",
    "tags": ["quotes"],
    "parameters": [QUOTE],
    "responses": {200: response(ref("Quote"), "As it was made; the times are not worked out again.")},
}
ANNOUNCE: dict[str, Any] = {
    "operation_id": "announceQuote",
    "summary": "Announce the batch of a quote",
    "description": "Workers are made ready for it. Announcing twice changes nothing.",
    "tags": ["quotes"],
    "parameters": [QUOTE],
    "request": None,
    "responses": {200: response(ref("Quote"), "It is announced.")},
}
WITHDRAW: dict[str, Any] = {
    "operation_id": "withdrawQuote",
    "summary": "Withdraw an announcement",
    "description": "Withdrawing what is not announced changes nothing.",
    "tags": ["quotes"],
    "parameters": [QUOTE],
    "responses": {200: response(ref("Quote"), "It is not announced.")},
}
