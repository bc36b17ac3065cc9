"""Push an image to a registry, and learn the digest under which it is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import DockerException
from requests.exceptions import RequestException

from builds.images.docker_cli import Docker
from controlplane.kernel.errors import Invalid, Unavailable

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def name(*, registry: str, image_name: str, lock_id: str) -> tuple[str, str]:
    """Repository and tag of a lock's image."""
    return (f"{registry}/{image_name}" if registry else image_name), lock_id[:12]


def push(docker: Docker, *, repository: str, tag: str, credentials: str = "", say: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> str:
    """The digest in the registry. Raises Unavailable `push_failed` with the registry's words, Invalid `push_stopped`."""
    digest = ""
    with docker.client() as client:
        try:
            for event in client.api.push(repository, tag=tag, stream=True, decode=True, auth_config=_login(credentials)):
                if event.get("error"):
                    raise _failed(repository, str(event["error"]))
                if stop():
                    raise Invalid("push_stopped", "The push was stopped.")
                digest = _digest(event) or digest
                if event.get("status") and "progress" not in event:
                    say(f"{event.get('id', '')} {event['status']}".strip()[:300])
        except (DockerException, RequestException, OSError) as error:
            raise _failed(repository, str(error)) from error
    if not digest:
        raise _failed(repository, "the registry named no digest")
    return digest


def _digest(event: dict[str, Any]) -> str:
    told = str((event.get("aux") or {}).get("Digest", "")) if isinstance(event.get("aux"), dict) else ""
    return told if _DIGEST.fullmatch(told) else ""


def _login(path: str) -> dict[str, str] | None:
    """The registry's name and password, from a file with name:password; None for a registry that asks for none, or the engine's own login."""
    if not path:
        return None
    try:
        user, _, password = Path(path).read_text("utf-8").strip().partition(":")
    except (OSError, ValueError) as error:
        raise Invalid("credentials_unreadable", "The registry's credentials cannot be read.", "Check BUILD_REGISTRY_CREDENTIALS.") from error
    return {"username": user, "password": password}


def _failed(repository: str, reason: str) -> Unavailable:
    return Unavailable(
        "push_failed",
        f"{repository[:200]} did not take the image.",
        "Check that the registry runs, has room, and accepts the credentials; then build again: every layer is cached.",
        details={"reason": reason[:600]},
    )
