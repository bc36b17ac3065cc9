"""Routes of the stream process. Django is used for its models only; its calls run in a small thread pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import django
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import close_old_connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from billing import keys  # noqa: E402
from billing.authentication import secret_of  # noqa: E402
from controlplane.kernel import envelope  # noqa: E402
from controlplane.kernel.errors import LimitExceeded, NotFound, WorkflowError  # noqa: E402
from controlplane.kernel.ids import parse_uuid, uuid7  # noqa: E402
from controlplane.stream import build_events  # noqa: E402
from controlplane.stream.proxy import Proxy  # noqa: E402
from controlplane.stream.waking import Waker, within  # noqa: E402
from fleet import events, tokens, worker_api, worker_body  # noqa: E402
from fleet.models import Job  # noqa: E402

T = TypeVar("T")
THREADS = 6
RECHECK_S = 1.0
KEEP_ALIVE_S = 15.0
MAX_STREAM_S = 3600.0
MOST_STREAMS = 32  # of one customer: each looks at the database whenever its job may have changed, as the workers' polls do

waker = Waker()
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="stream-db")
_stopping = asyncio.Event()
_streams: Counter[Any] = Counter()


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """Run a blocking database call outside the event loop."""

    def run() -> T:
        close_old_connections()
        try:
            return call(*args)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_pool, run)


async def claim(request: Request) -> Response:
    """Long poll: answer as soon as a job is leased, or empty after `wait_s`."""
    token = worker_api.bearer(request.headers.get("authorization", ""))
    worker = await in_thread(tokens.worker_of, token)
    body = worker_body.read_json(await _bounded(request))
    wait_s = worker_body.seconds(body.get("wait_s"), most=settings.WORKER["POLL_WAIT_S"])
    until = time.monotonic() + wait_s
    with waker.listening(f"pool:{worker.pool_id}") as woken:
        while True:
            woken.clear()
            answer = await in_thread(worker_api.try_claim, token, body)
            left = until - time.monotonic()
            if answer["jobs"] or answer["drain"] or left <= 0 or _stopping.is_set():
                return JSONResponse(answer)
            await within(min(left, RECHECK_S), woken)
            if await request.is_disconnected():
                return Response(status_code=499)


async def _bounded(request: Request) -> bytes:
    """The body, or just enough of it to be refused."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > worker_body.MAX_BODY_BYTES:
            break
    return raw


async def job_events(request: Request) -> Response:
    """Server-sent events of one job: its whole state at every change, resumable because the event id is the job's revision."""
    secret = secret_of(request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))
    key = await in_thread(lambda: keys.authenticate(secret, now=timezone.now()))
    keys.require_scope(key, "jobs:read")
    job_id = parse_uuid(request.path_params["job"])
    last = request.headers.get("last-event-id", "")
    seen = int(last) if last.isdecimal() and len(last) < 10 else 0

    def look() -> Job | None:
        return Job.objects.select_related("workflow", "version").filter(id=job_id, customer_id=key.customer_id).first() if job_id else None

    if await in_thread(look) is None:
        raise NotFound("job_not_found", "There is no such job.", "Check the id and the key it belongs to.")

    if _streams[key.customer_id] >= MOST_STREAMS:
        raise LimitExceeded(
            "too_many_streams",
            f"This account listens to {MOST_STREAMS} jobs already.",
            "Close a stream, or ask GET /v1/jobs/{id} with 'Prefer: wait=30'.",
            headers={"Retry-After": "5"},
        )

    async def stream() -> AsyncIterator[bytes]:
        nonlocal seen
        yield b"retry: 2000\n\n"
        ends = time.monotonic() + MAX_STREAM_S
        said = time.monotonic()
        with _one_more(key.customer_id), waker.listening(f"job:{job_id}") as woken:
            while time.monotonic() < ends and not _stopping.is_set():
                woken.clear()
                job = await in_thread(look)
                if job is None:
                    return
                if job.revision > seen or job.is_terminal:
                    seen = job.revision
                    yield (await in_thread(events.render, job, _base_url(request))).encode()
                    said = time.monotonic()
                    if job.is_terminal:
                        return
                elif time.monotonic() - said >= KEEP_ALIVE_S:
                    yield b": still here\n\n"
                    said = time.monotonic()
                await within(2.0, woken)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})


@contextlib.contextmanager
def _one_more(customer: Any) -> Iterator[None]:
    """Count a stream of `customer` while it is open."""
    _streams[customer] += 1
    try:
        yield
    finally:
        _streams[customer] -= 1
        if not _streams[customer]:
            del _streams[customer]


def _base_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}" if request.headers.get("host") else settings.PUBLIC_URL


async def alive(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def refused(request: Request, error: Exception) -> Response:
    """The one error envelope."""
    known = envelope.translate(error)
    request_id = request.headers.get("x-request-id", "")[:64] or uuid7().hex
    return JSONResponse(known.envelope(request_id), status_code=known.status, headers={**known.headers, "X-Request-ID": request_id})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    waker.start()
    try:
        yield
    finally:
        _stopping.set()
        waker.wake_all()
        await waker.stop()
        await proxy.close()
        _pool.shutdown(wait=False, cancel_futures=True)


proxy = Proxy(os.environ.get("EDGE_UPSTREAM", ""))
app = Starlette(
    routes=[
        Route("/worker/v1/claim", claim, methods=["POST"]),
        Route("/v1/jobs/{job}/events", job_events, methods=["GET"]),
        build_events.route(in_thread=in_thread, stopping=_stopping),
        Route("/stream/healthz", alive),
        *([Route("/{path:path}", proxy.forward, methods=list(Proxy.METHODS))] if proxy.enabled else []),
    ],
    exception_handlers={WorkflowError: refused, Exception: refused},
    lifespan=lifespan,
)
