"""GET from addresses that people name, under the same guard as `controlplane.kernel.outbound`.

Every hop of a redirect is resolved and checked anew; size and time are bounded over all hops.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import httpcore

from controlplane.kernel import outbound
from controlplane.kernel.errors import Invalid, NotFound, TooLarge

MAX_HOPS = 4
MAX_URL = 8_000  # stores lead to signed addresses, which are long
_MOVED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Fetched:
    """The answer of the last hop."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


def get(
    url: str, *, max_bytes: int, timeout_s: float = 60.0, headers: Mapping[str, str] | None = None, schemes: tuple[str, ...] = ("https", "http")
) -> Fetched:
    """The body behind `url`.

    Raises Invalid when the address is refused or no hop may speak its scheme, NotFound when nothing good answers (with its
    `status` as a detail when it answered at all), TooLarge beyond `max_bytes`.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(MAX_HOPS + 1):
        if url.partition("://")[0].lower() not in schemes:
            raise Invalid("address_refused", f"The address {_shown(url)} does not start with {schemes[0]}://.", "Give another address.")
        answer = _once(url, max_bytes=max_bytes, timeout_s=deadline - time.monotonic(), headers=headers or {})
        if answer.status in _MOVED and answer.headers.get("location"):
            try:
                url = urljoin(url, answer.headers["location"])
            except ValueError as error:
                raise NotFound("address_unreachable", f"{_shown(url)} leads to what is no address.", "Check the address.") from error
            continue
        if answer.status not in (200, 206):
            raise NotFound("address_unreachable", f"{_shown(url)} answered {answer.status}.", "Check the address.", details={"status": answer.status})
        return answer
    raise NotFound("address_unreachable", f"{_shown(url)} was sent on more than {MAX_HOPS} times.", "Give the final address.")


def _once(url: str, *, max_bytes: int, timeout_s: float, headers: Mapping[str, str]) -> Fetched:
    try:
        parsed = outbound.check_url(url, most=MAX_URL)
        if timeout_s <= 0:
            raise outbound.Failed("no answer in time")
        sent = [(b"Host", parsed.netloc), (b"Accept-Encoding", b"identity"), *((k.encode(), v.encode()) for k, v in headers.items())]
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        limits = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)}
        network = outbound._CheckedNetwork(timeout_s)
        with (
            httpcore.ConnectionPool(ssl_context=outbound._tls(), network_backend=network, max_connections=1) as pool,
            pool.stream("GET", target, headers=sent, extensions=limits) as response,
        ):
            said = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            body = bytearray()
            if response.status in (200, 206):
                for chunk in response.iter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        raise TooLarge("answer_too_large", f"{_shown(url)} sends more than {max_bytes:,} bytes.", "Fetch it by hand and name the file.")
            return Fetched(response.status, said, bytes(body), url)
    except Invalid as error:
        # The guard speaks of webhooks, its first user.
        message = error.message.replace("This webhook URL", f"The address {_shown(url)}")
        suggestion = "Give an http(s) address on the public internet, without credentials."
        raise Invalid("address_refused", message, suggestion, details={"address": _shown(url)}) from None
    except (outbound.Failed, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError, ssl.SSLError, OSError) as error:
        reason = str(error)[:200] or type(error).__name__
        raise NotFound(
            "address_unreachable", f"{_shown(url)} cannot be reached: {reason}.", "Check the address, or fetch it by hand and name the file."
        ) from error


def _shown(url: str) -> str:
    return url.partition("?")[0][:200]
