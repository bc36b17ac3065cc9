"""Which addresses may be asked for a model. They come from strangers' graphs, so by default only the public internet, by https.

A name is looked up once, every address it has is checked, and the connection goes to a checked address. Hosts that the
operator named may also be private and plain.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from fleet.agent.store.failures import Misconfigured, Refused

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Public by number, private by use: clouds' metadata services.
_METADATA = frozenset(ipaddress.ip_address(a) for a in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}
_KEPT = "/%:@!$&'()*+,;=~-._"
_RULE = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>(?:\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, slots=True)
class Place:
    """An address taken apart. `named` says that the operator knows the host."""

    scheme: str
    host: str
    port: int
    target: str
    named: bool = False

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def shown(self) -> str:
        """For logs and errors: without the query, which may hold a credential."""
        return f"{self.scheme}://{self.netloc}{self.target.partition('?')[0]}"[:300]


def place_of(url: str) -> Place:
    """An http(s) address taken apart. Raises Refused."""
    if re.search(r"[\x00-\x20\x7f-\x9f\\]", url):
        raise Refused("An address with spaces, control characters or backslashes is not used.")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
        host = host if ":" in host else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise Refused(f"{url.partition('?')[0][:200]} is no valid address.") from None
    if parts.scheme not in _PORTS or not host:
        raise Refused(f"{url.partition('?')[0][:200]} is no address that models are fetched from.", "Use https://, s3://, hf:// or file://.")
    if "@" in parts.netloc:
        raise Refused(f"The address on {host} carries a user name or password.", "Put credentials into the file named by COMFYPLANE_STORE_SECRETS.")
    if port == 0:
        raise Refused(f"The port of the address on {host} is 0.")
    target = quote(parts.path or "/", safe=_KEPT)
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT + "?")
    return Place(parts.scheme, host, port or _PORTS[parts.scheme], target)


@dataclass(frozen=True)
class Rule:
    """One host the operator named."""

    host: str
    scheme: str = ""
    port: int | None = None

    def covers(self, place: Place) -> bool:
        fits = place.host.endswith(self.host[1:]) if self.host.startswith("*.") else place.host == self.host
        # A plain connection is only used where the rule says so itself.
        return fits and (self.scheme or "https") == place.scheme and self.port in (None, place.port)


class Reach:
    """`hosts` as in COMFYPLANE_STORE_HOSTS, `also` further addresses of the operator's settings (mirrors, endpoints)."""

    def __init__(self, hosts: Iterable[str], also: Iterable[str] = (), *, resolve: Callable[[str, int], list[str]] | None = None) -> None:
        self._anyone = "*" in hosts
        self._buckets = frozenset(h.removeprefix("s3://").rstrip("/") for h in hosts if h.startswith("s3://"))
        self._rules = [_rule(h) for h in hosts if h != "*" and not h.startswith("s3://")]
        for url in also:
            place = place_of(url)
            self._rules.append(Rule(place.host, place.scheme, place.port))
        self._resolve = resolve or _resolved

    def check(self, url: str) -> Place:
        """The place, if we may ask there. Raises Refused. Looks nothing up."""
        place = place_of(url)
        named = any(rule.covers(place) for rule in self._rules)
        if not named and place.scheme == "http":
            raise Refused(f"{place.shown} is not fetched over plain http.", "Use https, or name it in COMFYPLANE_STORE_HOSTS as http://host.", url=place.shown)
        if not named and not self._anyone:
            raise Refused(f"The host {place.host} is not among those that models may come from.", "Add it to COMFYPLANE_STORE_HOSTS.", url=place.shown)
        return Place(place.scheme, place.host, place.port, place.target, named)

    def bucket_allowed(self, bucket: str) -> bool:
        return bucket in self._buckets or "*" in self._buckets

    @property
    def allows_anyone(self) -> bool:
        return self._anyone

    def trust(self, url: str, bucket: str) -> None:
        """Add an S3 endpoint that the operator's settings lead to, plain and with the bucket as part of its name."""
        place = place_of(url)
        for host in (place.host, f"{bucket}.{place.host}".lower()):
            rule = Rule(host, place.scheme, place.port)
            if rule not in self._rules:
                self._rules.append(rule)

    def addresses(self, place: Place) -> list[str]:
        """Where to connect to. Raises Refused for a private address of a host that nobody named, and OSError when the name does not resolve."""
        try:
            found = self._resolve(place.host, place.port)
        except UnicodeError as error:
            raise OSError(f"the name {place.host} does not resolve: {error}") from None
        if not place.named and not all(is_public(ipaddress.ip_address(a.partition("%")[0])) for a in found):
            raise Refused(
                f"The host {place.host} is inside a private network.", "Name it in COMFYPLANE_STORE_HOSTS if models may come from there.", url=place.shown
            )
        return found


def is_public(address: _Address) -> bool:
    """Whether an address is on the public internet, also what it stands for. Pure."""
    odd = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast, address.is_reserved, address.is_unspecified)
    if not address.is_global or any(odd) or address in _METADATA:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    inner = [a for a in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if a is not None]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return not address.is_site_local and all(map(is_public, inner))


def _rule(text: str) -> Rule:
    found = _RULE.fullmatch(text)
    if found is None:
        raise Misconfigured(f"COMFYPLANE_STORE_HOSTS holds {text!r}, which is no host.", "Write host, *.host, http://host:port, s3://bucket or *.")
    return Rule(found["host"].strip("[]").lower(), found["scheme"] or "", int(found["port"]) if found["port"] else None)


def _resolved(host: str, port: int) -> list[str]:
    return list(dict.fromkeys(str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
