"""One Docker engine: its client, with every call bounded in time and every failure told as the providers' own errors.

An engine that is silent costs `ALIVE_S` and is then left alone for `REST_S`: whoever asks meanwhile is told at once, so that a dead
machine with a hundred workers delays nobody by a hundred time-outs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fleet.providers.base import NoCapacity, ProviderError, Refused, Unavailable

log = logging.getLogger(__name__)

CALL_S = 10
"""Longest silence of the engine within a call that changes nothing."""
CHANGE_S = 20
"""The same where it makes, starts or removes a container."""
ALIVE_S = 3
"""Longest silence before an engine of which nothing was heard for `FRESH_S`: it is asked whether it is there at all."""
FRESH_S = 1.0
REST_S = 10.0
"""How long a silent engine is left alone."""
PULL_S = 600
_FIRST = "1.24"  # every engine understands it; the one that is spoken is agreed upon
_GPU = (
    "could not select device driver",
    "nvidia-container",
    "unknown or invalid runtime name: nvidia",
    "no cuda-capable device",
    "nvml error",
    "unknown device",
)
_FULL = ("no space left", "cannot allocate memory", "not enough memory", "address pool", "device or resource busy")
_NEVER = ("oci runtime create failed", "oci runtime error", "runc create failed", "executable file not found", "invalid mount", "permission denied")
T = TypeVar("T")


class Taken(ProviderError):
    """The name is in use (409), or the container is not in a state for this."""


class Gone(ProviderError):
    """There is no such container (404)."""


class MissingImage(Refused):
    """The engine does not have the image."""


class Engine:
    """A way to one engine. Its connections are made when they are needed, and again after it was away."""

    def __init__(self, host: str, tls_dir: str = "") -> None:
        self.host, self.tls_dir = host, tls_dir
        self.giving_out = threading.Lock()
        """Held while a GPU is chosen and taken."""
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        """Held while it is asked whether it is there: one asks, the others wait for what comes of it."""
        self._heard: float | None = None
        self._rest_until: float | None = None
        self._silence = ""

    def call(self, asked: Callable[[Any], T], *, within_s: int = CALL_S) -> T:
        """`asked` of the engine's client. Every call must bear being made twice: a connection that broke is made again, once.

        Raises Unavailable (at once while a silent engine is left alone), Refused (MissingImage), NoCapacity, Taken or Gone.
        """
        import docker.errors

        with self._looking:
            self._refuse_resting()
            if self._heard is None or time.monotonic() - self._heard > FRESH_S:
                with contextlib.suppress(docker.errors.APIError):  # whatever it says, it is there
                    self._ask(lambda api: api.ping(), ALIVE_S)
        try:
            return self._ask(asked, within_s)
        except docker.errors.APIError as error:
            raise self._told(error) from error

    def _ask(self, asked: Callable[[Any], T], within_s: int) -> T:
        """Raises Unavailable, or docker's APIError with what the engine said."""
        import docker.errors
        import requests.exceptions

        began = time.monotonic()
        for attempt in (1, 2):
            try:
                answer = asked(self._client(within_s))
                self._heard = time.monotonic()
                return answer
            except docker.errors.APIError:
                self._heard = time.monotonic()
                raise
            except requests.exceptions.Timeout as error:
                self._drop(within_s)
                raise self._left_alone(f"The Docker engine at {self.host} did not answer within {within_s} s.", since=began) from error
            except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
                self._drop(within_s)  # an engine that was restarted may be another one by now
                if attempt == 2 or not isinstance(error, requests.exceptions.ConnectionError):
                    raise self._left_alone(f"The Docker engine at {self.host} cannot be reached: {short(error)}", since=began) from error
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                self._drop(within_s)
                raise Unavailable(f"The Docker engine at {self.host} gave an answer that makes no sense: {short(error)}") from error
        raise AssertionError("not reached")

    def _left_alone(self, why: str, *, since: float) -> Unavailable:
        """What to raise after a failure. One that took its time means rest; a refused connection costs nothing and is tried again at once."""
        now = time.monotonic()
        if now - since > FRESH_S / 2:
            self._rest_until, self._silence, self._heard = now + REST_S, why, None
        return Unavailable(why)

    def _refuse_resting(self) -> None:
        left = (self._rest_until or 0.0) - time.monotonic()
        if left > 0:
            raise Unavailable(f"{self._silence.rstrip('.')}. It is asked again in {left:.0f} s.", retry_after_s=left)

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, within_s: int) -> Any:
        with self._lock:
            if within_s not in self._clients:
                self._clients[within_s] = self._made(within_s)
            return self._clients[within_s]

    def _drop(self, within_s: int) -> None:
        with self._lock:  # not closed: other threads may be reading from it
            self._clients.pop(within_s, None)

    def _made(self, within_s: int) -> Any:
        import docker
        from docker.constants import DEFAULT_DOCKER_API_VERSION
        from docker.utils import compare_version

        tls: Any = False
        if self.tls_dir:
            here = Path(self.tls_dir)
            try:
                tls = docker.tls.TLSConfig(client_cert=(str(here / "cert.pem"), str(here / "key.pem")), ca_cert=str(here / "ca.pem"), verify=True)
            except docker.errors.TLSParameterError as error:
                raise Unavailable(f"The certificates in {self.tls_dir} cannot be used: ca.pem, cert.pem and key.pem must be there.") from error
        client = docker.APIClient(base_url=self.host, version=_FIRST, timeout=within_s, tls=tls)
        client.trust_env = False  # an HTTP proxy of the environment is for the internet
        theirs = str(client.version(api_version=False)["ApiVersion"])
        # Set as its constructor would have, which asks through the proxy.
        client._version = DEFAULT_DOCKER_API_VERSION if compare_version(DEFAULT_DOCKER_API_VERSION, theirs) > 0 else theirs  # type: ignore[attr-defined]
        return client

    def _told(self, error: Any) -> ProviderError:
        """What the engine's refusal means for us."""
        status = int(getattr(error, "status_code", None) or 500)
        said = short(error.explanation or error)
        words = said.lower()
        if status == 404:
            return MissingImage(f"The Docker engine does not have the image: {said}") if "no such image" in words or "manifest unknown" in words else Gone(said)
        if status == 409:
            return Taken(said)
        if status == 429:
            wait = (error.response.headers.get("Retry-After") or "") if error.response is not None else ""
            return Unavailable(f"The Docker engine asks to be asked less often: {said}", retry_after_s=float(wait) if wait.isdecimal() else None)
        if any(word in words for word in _GPU):
            return NoCapacity(f"The machine cannot give the GPU that was asked for: {said}")
        if any(word in words for word in _FULL):
            return NoCapacity(f"The machine has no room for another worker: {said}")
        if status < 500 or any(word in words for word in _NEVER):
            return Refused(f"The Docker engine refused: {said}")
        return Unavailable(f"The Docker engine at {self.host} failed: {said}")


def short(said: object) -> str:
    """An engine's words in one line, bounded."""
    return "".join(c if c.isprintable() else " " for c in str(said))[:300].strip()
