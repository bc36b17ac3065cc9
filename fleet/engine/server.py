"""The HTTP and WebSocket face of the engine: routes, origin check, size limit."""

from __future__ import annotations

import asyncio
import ipaddress
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fleet.engine.edges import facts, files, prompts
from fleet.engine.edges.answers import bare, broken, not_found
from fleet.engine.engine import Engine
from fleet.engine.sockets import FEATURES

LONGEST_BODY = int(FEATURES["max_upload_size"])


class BodyTooLong(Exception):
    """A request body passed the upload limit."""


def application(engine: Engine) -> Starlette:
    """The engine behind its routes; prompts run as long as the application lives."""

    async def socket(websocket: WebSocket) -> None:
        await engine.hub.serve(websocket, engine.status())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.hub.attach(asyncio.get_running_loop())
        engine.start()
        publisher = asyncio.create_task(engine.hub.publish())
        yield
        publisher.cancel()

    plain = [*prompts.ROUTES, *facts.ROUTES, *files.ROUTES, WebSocketRoute("/ws", socket)]
    shared = [route for route in plain if not (isinstance(route, Route) and route.path == "/_fault")]
    routes = [*plain, Mount("/api", app=Router([*shared, *prompts.JOB_ROUTES], redirect_slashes=False, default=_missing))]
    handlers = {404: _on_missing, 405: _on_method, Exception: _on_error}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.engine = engine
    app.add_middleware(Gate)
    return app


async def _missing(scope: Scope, receive: Receive, send: Send) -> None:
    await not_found()(scope, receive, send)


async def _on_missing(request: Request, error: Exception) -> Response:
    return not_found()


async def _on_method(request: Request, error: Exception) -> Response:
    allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    return PlainTextResponse("405: Method Not Allowed", status_code=405, headers={"allow": allowed})


async def _on_error(request: Request, error: Exception) -> Response:
    return broken()


class Gate:
    """Refuses pages of other origins and bodies beyond the limit; turns bugs into 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _cross_origin(headers):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await bare(403)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, length = False, 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > LONGEST_BODY:
                raise BodyTooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except BodyTooLong:
            if not started:
                await bare(413)(scope, receive, send)
        except Exception:
            traceback.print_exc(limit=-2)
            if not started:
                await broken()(scope, receive, send)


def _cross_origin(headers: Headers) -> bool:
    """Whether a page of another origin talks to this loopback server."""
    if headers.get("sec-fetch-site") == "cross-site":
        return True
    origin = headers.get("origin")
    host = urlsplit(f"//{headers.get('host', '')}")
    if not origin or not _is_loopback(host.hostname):
        return False
    page = urlsplit(origin)
    if page.hostname != host.hostname:
        return True
    return page.port is not None and host.port is not None and page.port != host.port


def _is_loopback(name: str | None) -> bool:
    if name is None or name == "localhost":
        return name is not None
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
