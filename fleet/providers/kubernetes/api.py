"""One cluster's API server, over the official client: its credentials and connections, our words for its refusals.

Bodies are plain JSON, since the client's own classes cost milliseconds a pod and drop what they do not know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fleet.providers.base import ProviderError, Refused, Unavailable

Json = dict[str, Any]

TIMEOUT_S = (3.0, 15.0)
"""To connect, and between two pieces of an answer."""
MERGE = "application/merge-patch+json"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MOST_WORDS = 300


class Missing(ProviderError):
    """404."""


class Conflicted(ProviderError):
    """409: somebody else changed it, or it is there already."""


class Expired(ProviderError):
    """410: what was asked to go on from is forgotten."""


class Api:
    """A connection. Safe to use from several threads."""

    def __init__(self, context: str = "") -> None:
        self.context = context
        self.refused = False
        """Whether our credentials were: they may be read anew."""
        self._client, self.namespace = _connect(context)

    def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Json | None = None, kind: str = "application/json", plain: bool = False
    ) -> Any:
        """The answer as JSON, or as text with `plain`. Raises Unavailable, Refused, Missing, Conflicted or Expired."""
        from urllib3.exceptions import HTTPError

        try:
            response = self._send(method, path, query, body, kind, TIMEOUT_S)
            with response.response:
                data = response.response.read()
        except (HTTPError, OSError) as error:
            raise Unavailable(f"The Kubernetes API server cannot be reached: {_short(error)}.") from error
        self.refused = response.status == 401
        if response.status >= 400:
            raise refusal(response.status, data, response.response.headers)
        if plain:
            return data.decode(errors="replace")
        try:
            return json.loads(data or b"{}")
        except ValueError as error:
            raise Unavailable("The Kubernetes API server answered with something that is not JSON.") from error

    def watch(self, path: str, *, query: Mapping[str, Any], quiet_s: float) -> Iterator[Json]:
        """Events until the server ends the stream, or says nothing for `quiet_s`. Raises like `call`."""
        from urllib3.exceptions import HTTPError

        try:
            response = self._send("GET", path, query, None, "application/json", (TIMEOUT_S[0], quiet_s))
            if response.status >= 400:
                raise refusal(response.status, response.response.read(), response.response.headers)
            with response.response:
                yield from _lines(response.response)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"The watch ended: {_short(error)}.") from error

    def _send(self, method: str, path: str, query: Mapping[str, Any] | None, body: Json | None, kind: str, timeout: tuple[float, float]) -> Any:
        headers = {"Accept": "application/json", "User-Agent": "comfyplane"}
        if body is not None:
            headers["Content-Type"] = kind
        made = self._client.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        return self._client.call_api(*made[:4], _request_timeout=timeout)


def segment(name: str) -> str:
    """A name as part of a path."""
    return quote(name, safe="")


def refusal(status: int, data: bytes, headers: Mapping[str, str]) -> ProviderError:
    """What an answer of 400 or more means to us."""
    try:
        told = json.loads(data)
        said = str(told.get("message") or told.get("reason") or "")
    except (ValueError, AttributeError):
        said = data[:_MOST_WORDS].decode(errors="replace")
    said = " ".join(said.split())[:_MOST_WORDS] or f"status {status}"
    if status == 404:
        return Missing(said)
    if status == 409:
        return Conflicted(said)
    if status == 410:
        return Expired(said)
    if status == 429 or status >= 500:
        wait = retry_after(headers.get("Retry-After"))
        return Unavailable(f"The Kubernetes API server says {status}: {said}", retry_after_s=wait)
    if status == 401:
        return Refused("The Kubernetes API server does not accept our credentials. Renew the kubeconfig or the service account.")
    if status == 403:
        return Refused(f"Kubernetes does not allow it: {said}. Compare the Role with deploy/.")
    return Refused(f"Kubernetes refused it ({status}): {said}")


def retry_after(value: str | None, *, most_s: float = 600.0) -> float | None:
    """Seconds of a Retry-After field in either form."""
    if not value:
        return None
    try:
        return min(max(float(value), 0.0), most_s)
    except ValueError:
        pass
    try:
        from datetime import UTC, datetime

        return min(max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0), most_s)
    except (ValueError, TypeError):
        return None


def _lines(stream: Any) -> Iterator[Json]:
    """JSON objects, one a line."""
    rest = b""
    for piece in stream.stream(65_536, decode_content=True):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise Unavailable("The watch sent something that is not JSON.") from error


def _connect(context: str) -> tuple[Any, str]:
    """The official client for a context, and the namespace meant where none is named."""
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False  # what to try again is decided by who asks
    try:
        if not context and "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            return client.ApiClient(configuration), OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else "default"
        file = os.environ.get("KUBECONFIG") or None  # the client looks only once
        config.load_kube_config(config_file=file, context=context or None, client_configuration=configuration, persist_config=False)
        contexts, current = config.list_kube_config_contexts(config_file=file)
        found = next((c for c in contexts if c["name"] == context), current) or {}
        return client.ApiClient(configuration), (found.get("context") or {}).get("namespace") or "default"
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        where = f" for the context {context!r}" if context else ""
        raise Unavailable(f"There is no way to a cluster{where}: {_short(error)}. Set KUBECONFIG, or run inside the cluster.") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
