"""What a tag means in a registry of images right now: its digest, by the registry's own HTTP interface.

Follows the OCI distribution specification: HEAD of the manifest, with a bearer token where the registry asks for one.
The reference comes from the settings; the address of the token server comes from the registry and is checked.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import httpx

from controlplane.kernel import outbound
from controlplane.kernel.errors import WorkflowError

HUB, HUB_NAME = "registry-1.docker.io", "docker.io"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1", "docker.distribution.manifest.v2")
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_REGISTRY = re.compile(r"[a-z0-9.-]+(:\d{1,5})?")


def digest(reference: str, *, timeout_s: float = 10.0) -> str:
    """sha256:… of name:tag in its registry, or "" when that cannot be told."""
    registry, name, tag = split(reference)
    url = f"{'http' if _is_loopback(registry) else 'https'}://{registry}/v2/{name}/manifests/{tag}"
    try:
        with httpx.Client(timeout=httpx.Timeout(timeout_s, connect=5.0), follow_redirects=False) as client:
            answer = client.head(url, headers={"Accept": _ACCEPT})
            if answer.status_code == 401 and (token := _token(client, answer.headers.get("www-authenticate", ""), registry, name)):
                answer = client.head(url, headers={"Accept": _ACCEPT, "Authorization": f"Bearer {token}"})
            found = answer.headers.get("docker-content-digest", "") if answer.status_code == 200 else ""
    except (httpx.HTTPError, httpx.InvalidURL, WorkflowError, outbound.Failed, ValueError):
        return ""
    return found if DIGEST.fullmatch(found) else ""


def split(reference: str) -> tuple[str, str, str]:
    """Registry, repository and tag of a reference, as Docker reads it: `python` is docker.io/library/python:latest."""
    first, slash, rest = reference.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost") and _REGISTRY.fullmatch(first) is not None
    registry, path = (first, rest) if has_registry else (HUB_NAME, reference)
    name, _, tag = path.rpartition(":") if ":" in path.rpartition("/")[2] else (path, "", "")
    if registry == HUB_NAME:
        registry, name = HUB, name if "/" in name else f"library/{name}"
    return registry, name, tag or "latest"


def _token(client: httpx.Client, challenge: str, registry: str, name: str) -> str:
    said = dict(_CHALLENGE.findall(challenge))
    realm = urlsplit(said.get("realm", ""))
    if not challenge.lower().startswith("bearer ") or realm.hostname is None:
        return ""
    if realm.netloc != registry:
        if realm.scheme != "https":
            return ""
        outbound.addresses(realm.hostname, realm.port or 443)
    asked = {"service": said.get("service", ""), "scope": f"repository:{name}:pull"}
    answer = client.get(realm.geturl(), params={key: value for key, value in asked.items() if value})
    body = answer.json() if answer.status_code == 200 and len(answer.content) < 100_000 else {}
    return str(body.get("token") or body.get("access_token") or "") if isinstance(body, dict) else ""


def _is_loopback(registry: str) -> bool:
    """Registries on this machine speak plain HTTP, to Docker as well."""
    host = registry.partition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
