"""One HTTP connection for large files: checked addresses, redirects by hand, bytes straight into a buffer.

http.client and not httpx here: reading into one buffer takes a half to a quarter of the processor per byte
(bench/model_store.py), and the connection can be pinned to the address that was checked.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from fleet.agent.store.failures import Refused, Unreachable
from fleet.agent.store.reach import Place, Reach, place_of

MAX_REDIRECTS = 8
REDIRECTS = (301, 302, 303, 307, 308)
BROKEN = (http.client.HTTPException, OSError)
USER_AGENT = "comfyplane-store/1"


@dataclass(frozen=True)
class Target:
    """Where a request goes. `private` headers hold a credential and stay with the origin they are for."""

    url: str
    private: Mapping[str, str] = field(default_factory=dict, repr=False)


class Wire:
    """Requests one after another, on one connection while the origin stays the same. Not for several threads."""

    def __init__(self, reach: Reach, *, timeout_s: float, proxy: str = "") -> None:
        self._reach, self._timeout_s, self._proxy = reach, timeout_s, proxy
        self._origin: tuple[str, str, int] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._answer is not None:
            self._answer.close()
        self._connection = self._answer = self._origin = None

    def hang_up(self) -> None:
        """From another thread: a read that waits ends at once."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        # An answer that closes the connection has taken the socket away from it.
        with contextlib.suppress(OSError, AttributeError, ValueError), socket.socket(fileno=os.dup(self._answer.fileno())) as same:  # type: ignore[union-attr]
            same.shutdown(socket.SHUT_RDWR)

    def get(self, target: Target, headers: Mapping[str, str]) -> tuple[http.client.HTTPResponse, Target]:
        """The answer after all redirects, and where it came from. Raises Refused, Unreachable or BROKEN."""
        for _ in range(MAX_REDIRECTS):
            place = self._reach.check(target.url)
            answer = self._ask(place, {**headers, **target.private})
            location = answer.headers.get("Location")
            if answer.status not in REDIRECTS or not location:
                return answer, Target(place.url, target.private)
            self._skip(answer)
            target = redirected(target, place, location)
        raise Unreachable(f"{self._reach.check(target.url).shown} redirects more than {MAX_REDIRECTS} times.")

    def _ask(self, place: Place, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        said = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers}
        if self._answer is not None and not self._answer.isclosed():
            self.close()  # an answer that was not read to its end stands in the way of the next
        for again in (True, False):
            reused = self._origin == place.origin and self._connection is not None
            if not reused:
                self.close()
                self._connection, self._origin = self._open(place), place.origin
            assert self._connection is not None
            try:
                self._connection.request("GET", place.url if self._plain_proxy(place) else place.target, headers=said)
                self._answer = self._connection.getresponse()
                return self._answer
            except BROKEN:
                self.close()
                # Servers close idle connections; only a fresh one that breaks is a failure.
                if not (reused and again):
                    raise
        raise AssertionError("the second try is never on a reused connection")

    def _skip(self, answer: http.client.HTTPResponse) -> None:
        if len(answer.read(65536)) == 65536:
            self.close()

    def _plain_proxy(self, place: Place) -> bool:
        return bool(self._proxy) and place.scheme == "http"

    def _open(self, place: Place) -> http.client.HTTPConnection:
        if self._proxy:
            # The proxy looks names up, so what may be reached behind it is for the proxy to say.
            parts = urlsplit(self._proxy if "://" in self._proxy else f"http://{self._proxy}")
            proxy = (parts.hostname or "", parts.port or 3128)
            if place.scheme == "http":
                return http.client.HTTPConnection(*proxy, timeout=self._timeout_s)
            tunnel = http.client.HTTPSConnection(*proxy, timeout=self._timeout_s, context=_tls())
            tunnel.set_tunnel(place.host, place.port)
            return tunnel
        return _pinned(place, self._reach.addresses(place), timeout_s=self._timeout_s)


def redirected(target: Target, place: Place, location: str) -> Target:
    """Where a redirect leads. Credentials do not go along to another origin, nor does anything from https to http. Pure."""
    url = urljoin(place.url, location)
    if place.scheme == "https" and urlsplit(url).scheme != "https":
        raise Refused(f"{place.shown} redirects to something that is not https.", url=place.shown)
    same = place_of(url).origin == place.origin
    return Target(url, target.private if same else {})


def _pinned(place: Place, addresses: list[str], *, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to one of the addresses, with the name of the place in its TLS and its Host header."""
    kind: type[http.client.HTTPConnection] = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    extra: dict[str, Any] = {"context": _tls()} if place.scheme == "https" else {}
    connection = kind(place.host, place.port, timeout=timeout_s, **extra)

    def connect(asked: tuple[str, int], timeout: float | None = None, source_address: Any = None) -> socket.socket:
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                return socket.create_connection((address, place.port), timeout_s)
            except OSError as error:
                failure = error
        raise failure

    connection._create_connection = connect  # type: ignore[attr-defined]  # http.client's own seam for this
    return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    import httpx  # the same certificates as the rest of the agent

    return httpx.create_ssl_context()
