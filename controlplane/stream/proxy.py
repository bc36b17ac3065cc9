"""A plain reverse proxy for one machine without another front: passes requests on to the web process, unbuffered.

Production puts nginx or a load balancer there (README); then EDGE_UPSTREAM is unset and this is off.
"""

from __future__ import annotations

import httpx
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from controlplane.kernel.errors import RequestTimeout, Unavailable
from controlplane.stream import arriving

_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
_OURS = _HOP | {b"date", b"server"}  # the server in front writes these itself


class Proxy:
    """Forwards to `upstream`: an http URL, or `unix:` and a socket path. Disabled when empty."""

    METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

    def __init__(self, upstream: str) -> None:
        self.enabled = bool(upstream)
        unix = upstream.removeprefix("unix:") if upstream.startswith("unix:") else None
        self._base = "http://web" if unix else upstream.rstrip("/")
        self._timeout = httpx.Timeout(120.0, connect=5.0, pool=30.0)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=unix, limits=httpx.Limits(max_connections=200, max_keepalive_connections=64), retries=0),
            timeout=self._timeout,
            trust_env=False,
        )

    async def forward(self, request: Request) -> Response:
        """One request there and back."""
        headers = [(k, v) for k, v in request.headers.raw if k not in _HOP and k not in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")]
        headers.append((b"x-forwarded-for", (request.client.host if request.client else "").encode()))
        headers.append((b"x-forwarded-proto", request.url.scheme.encode()))
        path = request.scope.get("raw_path", request.url.path.encode()).split(b"?")[0]
        query = request.scope.get("query_string", b"")
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        try:
            content = await arriving.body(request) if has_body else None
        except (ClientDisconnect, arriving.TooSlow) as error:
            return _not_sent(error)
        # Not client.build_request: it would accept encodings, for instance, which the caller never said it can read.
        outgoing = httpx.Request(
            request.method,
            httpx.URL(self._base).copy_with(raw_path=path + (b"?" + query if query else b"")),
            headers=headers,
            content=content,
            extensions={"timeout": self._timeout.as_dict()},
        )
        try:
            answer = await self._client.send(outgoing, stream=True)
        except (ClientDisconnect, arriving.TooSlow) as error:
            return _not_sent(error)
        except (httpx.ConnectError, httpx.PoolTimeout, httpx.ConnectTimeout):
            refusal = Unavailable("web_not_ready", "The web process does not answer yet.", "Try again in a moment.", headers={"Retry-After": "1"})
            return JSONResponse(refusal.envelope(), status_code=503, headers=refusal.headers)
        except httpx.TransportError:
            refusal = Unavailable(
                "web_went_away", "The web process went away before it answered.", "Send it again with the same Idempotency-Key.", headers={"Retry-After": "1"}
            )
            return JSONResponse(refusal.envelope(), status_code=503, headers=refusal.headers)
        response = StreamingResponse(answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose))
        # A 304 tells the length of what it does not send; the server below would wait for it.
        left_out = _OURS | {b"content-length"} if answer.status_code == 304 else _OURS
        response.raw_headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in left_out]
        return response

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _not_sent(error: Exception) -> Response:
    """The answer to a caller who went away, if anybody still hears it, or sent too slowly."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    refusal = RequestTimeout("body_too_slow", "The request body did not arrive in time.", "Send it again over a faster connection.")
    return JSONResponse(refusal.envelope(), status_code=refusal.status, headers={"Connection": "close"})
