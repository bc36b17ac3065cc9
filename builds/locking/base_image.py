"""The digest of the base image: named in the setting, known to the Docker engine here or to its registry, or not known."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

from django.conf import settings

from builds.findings import WARNING, Finding, finding
from builds.locking import image_registry
from builds.locking.running import TooMuch, TooSlow, run
from controlplane.kernel.errors import Invalid

_REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def pinned(reference: str, *, before: dict[str, Any] | None = None, offline: bool = False) -> tuple[dict[str, str], list[Finding]]:
    """{"reference", "digest"}. `before` is that of an earlier lock, kept when it names the same image. Raises Invalid `base_image_malformed`."""
    name, _, digest = reference.strip().partition("@")
    if not _REFERENCE.fullmatch(name) or (digest and not _DIGEST.fullmatch(digest)):
        raise Invalid("base_image_malformed", f"{reference[:200]!r} names no image.", "Set BUILD_BASE_IMAGE to name:tag or name@sha256:….")
    if not digest and before and before.get("reference") == name:
        digest = str(before.get("digest") or "")
    digest = digest or _of_engine(name) or ("" if offline else image_registry.digest(name))
    if digest:
        return {"reference": name, "digest": digest}, []
    message = f"The base image {name} is locked by name only; the name may mean other bytes later."
    suggestion = f"Set BUILD_BASE_IMAGE to {name}@sha256:…, or lock where its registry or the Docker engine can be asked."
    return {"reference": name, "digest": ""}, [finding(WARNING, "base_image_unpinned", message, suggestion)]


def _of_engine(name: str) -> str:
    """What the engine here knows of it: its digest in a registry, or the id of an image that was never pushed; "" without an engine."""
    build: dict[str, Any] = getattr(settings, "BUILD", {})
    docker = build.get("DOCKER") or shutil.which("docker")
    if not docker:
        return ""
    host = ["--host", build["DOCKER_HOST"]] if build.get("DOCKER_HOST") else []
    try:
        said = run([docker, *host, "image", "inspect", "--", name], timeout_s=10, max_output=1_000_000)
        found = json.loads(said.out)[0] if said.code == 0 else {}
    except (TooSlow, TooMuch, OSError, ValueError, IndexError):
        return ""
    digests = [one.rpartition("@")[2] for one in found.get("RepoDigests") or ()]
    digest = next((one for one in digests if _DIGEST.fullmatch(one)), str(found.get("Id", "")))
    return digest if _DIGEST.fullmatch(digest) else ""
