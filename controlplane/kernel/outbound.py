"""HTTP to addresses that customers chose: only to the public internet, never into our own network.

The name is resolved, every address it has is checked, and the connection goes to a checked address:
there is no second look-up that could answer differently. Redirects are not followed, the answer is
read up to a limit, and one deadline covers everything after the look-up. Private ranges are refused
unless settings.WEBHOOK_ALLOW_NETWORKS names them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx
from django.conf import settings

from controlplane.kernel import errors

MAX_URL = 500
MAX_ANSWER_BYTES = 64 * 1024
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NUMERIC_LABEL = re.compile(r"0x[0-9a-f]*|[0-9]+", re.IGNORECASE)
_HOUSE_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa")
# Public by number, private by use: Azure's and other clouds' metadata services.
_METADATA = frozenset(ipaddress.ip_address(a) for a in ("168.63.129.16", "169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")


class Failed(Exception):
    """The receiver could not be reached, or did not answer in time."""


@dataclass(frozen=True)
class Answer:
    """What the receiver said; the body is cut at the limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: str
    seconds: float


def check_url(url: str, *, most: int = MAX_URL) -> httpx.URL:
    """The parsed URL of at most `most` characters, when we would ever ask it; raises `webhook_url_refused`. Looks nothing up."""
    if len(url) > most:
        raise _refused(f"it is longer than {most:,} characters")
    if re.search(r"[\x00-\x20\x7f-\x9f\\]", url):
        raise _refused("it holds spaces, control characters or backslashes")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").rstrip(".").lower()
        userinfo, port = parsed.userinfo, parsed.port
    except (httpx.InvalidURL, ValueError, TypeError):
        raise _refused("it is not a valid URL") from None
    if parsed.scheme not in ("http", "https"):
        raise _refused("it does not start with https:// or http://")
    if userinfo or "@" in url.partition("://")[2].split("/", 1)[0]:
        raise _refused("it carries a user name or password")
    if not host:
        raise _refused("it has no host")
    if port is not None and not 1 <= port <= 65535:
        raise _refused("its port is not between 1 and 65535")
    address = _literal(host)
    if address is not None:
        if not _may_reach(address):
            raise _refused("its address is private or reserved")
    elif _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        raise _refused("its host is neither a name nor an address")
    elif not _allowed_networks() and ("." not in host or _is_house_name(host)):
        raise _refused("its host is a name inside a private network")
    return parsed


def post(url: str, *, body: bytes, headers: Mapping[str, str], timeout_s: float, max_answer_bytes: int = MAX_ANSWER_BYTES) -> Answer:
    """POST `body` and give the answer, whatever its status. Raises `webhook_url_refused`, or `Failed`."""
    parsed = check_url(url)
    started = time.monotonic()
    network = _CheckedNetwork(timeout_s)
    sent = [(b"Host", parsed.netloc), (b"Accept-Encoding", b"identity"), *((k.encode(), v.encode()) for k, v in headers.items())]
    target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
    limits = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=network, max_connections=1) as pool,
            pool.stream("POST", target, headers=sent, content=body, extensions=limits) as response,
        ):
            given = b""
            for chunk in response.iter_stream():
                given += chunk[: max_answer_bytes - len(given)]
                if len(given) >= max_answer_bytes:
                    break
            said = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            return Answer(response.status, said, given, network.address, time.monotonic() - started)
    except (httpcore.TimeoutException, TimeoutError):
        raise Failed(f"no answer within {timeout_s:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
        raise Failed(f"{type(error).__name__}: {error}"[:300]) from None


def addresses(host: str, port: int) -> list[str]:
    """Where `host` may be reached; raises `webhook_url_refused` when any of its addresses is not for customers."""
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise Failed(f"the name {host[:100]} does not resolve: {error}"[:300]) from None
    for text in found:
        if not _may_reach(ipaddress.ip_address(text.partition("%")[0])):
            raise _refused("its name leads to a private or reserved address")
    if not found:
        raise Failed(f"the name {host[:100]} has no address")
    return found


def resolve(host: str, port: int) -> list[str]:
    """Every address of `host`, once, in the system's order."""
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def _may_reach(address: _Address) -> bool:
    inner = _embedded(address)
    allowed = _allowed_networks()
    if any(a in network for a in (address, *inner) for network in allowed if a.version == network.version):
        return True
    if address == ipaddress.IPv6Address("::1") and any(ipaddress.IPv4Address("127.0.0.1") in n for n in allowed if n.version == 4):
        return True  # whoever allows loopback means both
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return _is_public(address.ipv4_mapped)
    return _is_public(address) and all(map(_is_public, inner))


def _is_public(address: _Address) -> bool:
    odd = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast, address.is_reserved, address.is_unspecified)
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not any(odd) and address not in _METADATA


def _embedded(address: _Address) -> list[_Address]:
    """IPv4 addresses that an IPv6 address stands for: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner: list[_Address] = [a for a in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if a is not None]
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return inner


def _literal(host: str) -> _Address | None:
    """The address written as a host, in every spelling the system's resolver takes: 127.1, 0x7f000001, 017700000001, ::1."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            pass
    return None


def _is_house_name(host: str) -> bool:
    return any(host == name or host.endswith(f".{name}") for name in _HOUSE_NAMES)


def _allowed_networks() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text.strip(), strict=False) for text in settings.WEBHOOK_ALLOW_NETWORKS if text.strip()]


def _refused(why: str) -> errors.Invalid:
    return errors.Invalid(
        "webhook_url_refused",
        f"This webhook URL cannot be used: {why}.",
        "Give an http(s) URL of at most 500 characters, without credentials, whose host is on the public internet.",
        details={"field": "webhook_url"},
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to checked addresses only, all within one deadline."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.address = ""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        deadline = time.monotonic() + self.timeout_s
        failure: Exception = Failed("no address")
        for address in addresses(host, port):
            try:
                stream = httpcore.SyncBackend().connect_tcp(address, port, timeout=_left(deadline), socket_options=socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self.address = address
            return _Deadlined(stream, deadline)
        raise failure


class _Deadlined(httpcore.NetworkStream):
    """A stream on which a receiver that answers byte by byte cannot hold us past the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self.stream, self.deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, timeout=_left(self.deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, timeout=_left(self.deadline))

    def close(self) -> None:
        self.stream.close()

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> httpcore.NetworkStream:
        return _Deadlined(self.stream.start_tls(ssl_context, server_hostname, timeout=_left(self.deadline)), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left
