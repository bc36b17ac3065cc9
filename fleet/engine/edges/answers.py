"""Answers in the shapes clients of the protocol know."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fleet.engine.engine import Engine


class Json(JSONResponse):
    media_type = "application/json; charset=utf-8"


def bare(status: int = 200) -> Response:
    """A status without body and content type."""
    return Response(status_code=status)


def not_found() -> Response:
    return Response(status_code=404, headers={"content-type": "application/octet-stream"})


def broken() -> Response:
    """What any exception in a handler turns into."""
    return PlainTextResponse("500 Internal Server Error\n\nServer got itself in trouble", status_code=500)


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def whole(query: Any, name: str, default: int | None = None) -> int | None:
    """A whole number from the query; raises ValueError when it is something else."""
    value = query.get(name)
    return default if value is None else int(value)
