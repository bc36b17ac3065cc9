"""What the image says when it is started: every node class of the lock must be there.

The container has no network, a read-only root, no capabilities, and limits. The agent inside boots ComfyUI the way a
worker would, and writes down its object_info.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from docker.errors import DockerException
from requests.exceptions import RequestException

from builds.images import dockerfile
from builds.images.docker_cli import Docker, unavailable
from controlplane.kernel.errors import Invalid

LABEL = "io.comfyplane.check"
MAX_OUTPUT = 64_000_000
TAIL = 30
_POLL_S = 0.2


@dataclass(frozen=True)
class Found:
    """What came up: object_info, installed Python packages {name: version}, Debian packages {name: version}, and the boot log."""

    object_info: dict[str, Any]
    python: dict[str, str] = field(default_factory=dict)
    debian: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0


def hardened(memory_mib: int) -> dict[str, Any]:
    """How a worker's container is to be run, as arguments of the SDK: what the image needs, and nothing more."""
    mine = f"uid={dockerfile.UID},gid={dockerfile.UID},mode=0700"
    return {
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777", dockerfile.DATA: mine},  # noqa: S108 - the container's
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 512,
        "mem_limit": f"{memory_mib}m",
        "init": True,
    }


def boot(docker: Docker, image: str, *, memory_mib: int, seconds: float, stop: Callable[[], bool] = lambda: False) -> Found:
    """Start ComfyUI inside the image and ask for its classes.

    Raises Invalid `image_does_not_start` with the last lines of its boot log, `check_timed_out`, `check_stopped`.
    """
    with docker.client() as client:
        try:
            container = client.containers.create(
                image,
                entrypoint=[f"{dockerfile.VENV}/bin/python", "-m", "fleet.agent.probe"],
                network_mode="none",
                environment={"COMFYUI_ARGS": "--cpu", "COMFYPLANE_START_TIMEOUT_S": f"{seconds:g}"},
                labels={LABEL: "1"},
                **hardened(memory_mib),
            )
        except (DockerException, RequestException) as error:
            raise unavailable(str(error)) from error
        try:
            began = time.monotonic()
            container.start()
            code = _wait(container, began + seconds + 20, stop)
            out = _read(container.logs(stdout=True, stderr=False, stream=True))
            said = container.logs(stdout=False, stderr=True, tail=400).decode("utf-8", "replace").splitlines()
            killed = bool(client.api.inspect_container(container.id)["State"].get("OOMKilled"))
        except (DockerException, RequestException) as error:
            raise unavailable(str(error)) from error
        finally:
            with contextlib.suppress(DockerException, RequestException):
                container.remove(force=True)
    took = time.monotonic() - began
    return _understood(code, out, [line[:2000] for line in said], killed, memory_mib, took)


def content_of(attributes: Mapping[str, Any]) -> str:
    """A word for everything in an image but its last layer, which only names the lock: equal words start equally.

    `attributes` is what the engine says about the image.
    """
    layers = (attributes.get("RootFS") or {}).get("Layers") or []
    config = attributes.get("Config") or {}
    said = [layers[:-1], [config.get(name) for name in ("Env", "Entrypoint", "Cmd", "User", "WorkingDir")]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def kept(found: Found) -> bytes:
    """What was found, to be read again by `recalled`."""
    return json.dumps({"object_info": found.object_info, "python": found.python, "debian": found.debian, "log": found.log, "seconds": found.seconds}).encode()


def recalled(data: bytes) -> Found:
    """What `kept` wrote."""
    return Found(**json.loads(data))


def sweep(docker: Docker, *, older_than_s: float, now_s: float) -> int:
    """Remove check containers whose builder was killed before it could; how many. `now_s` is Unix time."""
    removed = 0
    with docker.client() as client, contextlib.suppress(DockerException, RequestException):
        for container in client.api.containers(all=True, filters={"label": LABEL}):
            if container["Created"] + older_than_s < now_s:
                with contextlib.suppress(DockerException, RequestException):
                    client.api.remove_container(container["Id"], force=True)
                    removed += 1
    return removed


def missing(classes: Iterable[str], found: Found) -> list[str]:
    """Classes of the lock that did not come up."""
    return sorted(set(classes) - set(found.object_info))


def require(classes: Iterable[str], found: Found, *, packs: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The report on the classes. Raises Invalid `classes_missing`, with what ComfyUI said about the packs they are of."""
    wanted = sorted(set(classes))
    gone = missing(wanted, found)
    report = {"wanted": len(wanted), "found": len(found.object_info), "missing": gone[:500], "seconds": round(found.seconds, 2)}
    if gone:
        owners = {str(pack["key"]): sorted(set(pack.get("classes") or ()) & set(gone)) for pack in packs}
        lines = [line for line in found.log if any(word in line for word in ("IMPORT FAILED", "Cannot import", "Error", "error", "Traceback"))]
        raise Invalid(
            "classes_missing",
            f"{len(gone)} of {len(wanted)} node classes did not come up: {', '.join(gone[:5])}{' …' if len(gone) > 5 else ''}.",
            "Read what ComfyUI said when it started; a pack may lack a package, a file or a newer ComfyUI.",
            details={**report, "packs": {key: names for key, names in owners.items() if names}, "tail": (lines or found.log)[-TAIL:]},
        )
    return report


def _wait(container: Any, until: float, stop: Callable[[], bool]) -> int:
    while time.monotonic() < until:
        container.reload()
        if container.status in ("exited", "dead"):
            return int(container.attrs["State"]["ExitCode"])
        if stop():
            raise Invalid("check_stopped", "The check was stopped.")
        time.sleep(_POLL_S)
    raise Invalid("check_timed_out", "ComfyUI did not come up inside the image in time.", "Raise BUILD_CHECK_S, or look for a pack that waits for something.")


def _read(chunks: Iterable[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_OUTPUT:
            raise Invalid("check_too_much", "ComfyUI's list of classes is larger than can be kept.", "Leave packs out of the lock.")
    return bytes(data)


def _understood(code: int, out: bytes, said: list[str], killed: bool, memory_mib: int, seconds: float) -> Found:
    # Packs print to the same stream: only the probe's own last line counts.
    last = out.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        told = json.loads(last)
        log = [str(line)[:2000] for line in told.get("log") or ()] or said
        if code == 0 and isinstance(told.get("object_info"), dict):
            return Found(told["object_info"], _words(told.get("python")), _words(told.get("debian")), log, seconds)
        # Behind the colon stand its last lines, which are told as such.
        why = str(told.get("error") or f"it ended with code {code}").partition(": ")[0]
    except (ValueError, AttributeError, RecursionError):
        log, why = said, f"it ended with code {code}"
    if killed:
        why = f"it needed more than {memory_mib} MiB of memory"
    raise Invalid(
        "image_does_not_start",
        f"ComfyUI does not come up inside the image: {why[:300]}.",
        "Its last lines say why. BUILD_CHECK_MEMORY_MIB and BUILD_CHECK_S are the limits of this check.",
        details={"exit_code": code, "tail": log[-TAIL:]},
    )


def _words(value: Any) -> dict[str, str]:
    return {str(k)[:200]: str(v)[:100] for k, v in value.items()} if isinstance(value, dict) else {}
