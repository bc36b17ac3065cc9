"""A smoke run on a built image: one container without network, its request on standard input, its answer on standard output.

The container is as powerless as a worker's: no network, a read-only root, no capabilities, bounded memory and processes.
What it says is not trusted: the answer is bounded before it is read, and every output is measured here. Where no engine
can be reached the run fails and says so; it never passes unseen.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from builds import smoke_keeping
from builds.images.checking import hardened
from builds.models import Version
from controlplane.kernel.errors import Invalid, Unavailable, WorkflowError
from fleet import smoke, smoke_rule
from fleet.agent import measure
from fleet.models import SmokeRun
from fleet.smoke_files import placed

log = logging.getLogger(__name__)

LONGEST_S = 900.0
MAX_FILES = 32_000_000
MAX_ANSWER = 64_000_000
MAX_LOG = 4_000
CALL_S = 60
POLL_S = 0.2
LABEL = "io.comfyplane.smoke"
PICTURE_KINDS = ("image/",)


@dataclass(frozen=True, slots=True)
class Said:
    """What a container answered, how it ended, and the end of what it logged."""

    answer: bytes
    exit_code: int | None
    log: str
    seconds: float


def run(run_id: UUID, *, clock: Callable[[], datetime], client: Any = None) -> str:
    """Try the image of an open run and end the run. A run that is not open is left alone."""
    held = SmokeRun.objects.select_related("version__workflow", "build").filter(id=run_id, state=SmokeRun.State.RUNNING, build__isnull=False).first()
    if held is None or held.build is None:
        return "not open"
    image = held.build.image_id or held.build.image
    report: dict[str, Any] = {"image_id": held.build.image_id}
    try:
        payload = _payload(held.version, now=clock())
        said = contained(image, payload, name=f"comfyplane-smoke-{held.id}", client=client or engine())
        report["run_s"] = round(said.seconds, 3)
        outputs = _outputs(said)
        report |= {"outputs": len(outputs), "images": sum(o["media_type"].startswith("image/") for o in outputs)}
        error = smoke_rule.fault(outputs)
    except WorkflowError as refusal:
        error = smoke.error_of(refusal)
    except Exception as unforeseen:  # an engine fails in ways of its own; whatever it was, the run must end
        log.exception("smoke run on an image failed", extra={"run": str(run_id)})
        error = {
            "code": "engine_failed",
            "message": f"The container engine failed: {type(unforeseen).__name__}: {unforeseen}"[:1000],
            "suggestion": "Look at the engine, then run it again.",
        }
    smoke.close(held.id, error=error, report=report, now=clock())
    return "failed" if error else "passed"


def engine() -> Any:
    """A client of the container engine that builds the images; raises Unavailable when it does not answer."""
    import docker

    address = str(settings.BUILD["DOCKER_HOST"])
    try:
        client = docker.DockerClient(base_url=address, timeout=CALL_S)
        client.ping()
    except Exception as error:  # of docker, requests and urllib3 alike
        raise Unavailable(
            "docker_unavailable",
            f"No container engine answers at {address}, so the image was not tried: {str(error)[:300]}",
            "Start it, or say where it is in BUILD_DOCKER_HOST; then run it again.",
        ) from error
    return client


def contained(image: str, payload: bytes, *, name: str, client: Any, longest_s: float = LONGEST_S) -> Said:
    """Run the image's own entry point with `--serverless -` on `payload`. The container is gone afterwards, whatever happened."""
    import docker

    _remove(client, name)  # of an earlier try of the same run whose process died
    memory_mib = int(settings.BUILD["CHECK_MEMORY_MIB"])
    gpu = settings.WORKER["SMOKE_GPU"]
    container = client.containers.create(
        image,
        ["--serverless", "-"],
        name=name,
        labels={LABEL: name},
        stdin_open=True,
        network_mode="none",
        environment={} if gpu else {"COMFYUI_ARGS": "--cpu"},
        log_config={"Type": "json-file", "Config": {"max-size": "200m", "max-file": "1"}},
        **({"device_requests": [docker.types.DeviceRequest(count=1, capabilities=[["gpu"]])]} if gpu else {}),
        **hardened(memory_mib),
    )
    began = time.monotonic()
    try:
        attached = container.attach_socket(params={"stdin": 1, "stream": 1})
        container.start()
        _feed(attached, payload)
        code = _ended(container, began + longest_s)
        seconds = time.monotonic() - began
        answer = _bounded(container.logs(stdout=True, stderr=False, stream=True))
        tail = container.logs(stdout=False, stderr=True, tail=40)[-MAX_LOG:].decode("utf-8", "replace")
        return Said(answer, code, tail, seconds)
    finally:
        _remove(client, name)


def _payload(version: Version, *, now: datetime) -> bytes:
    graph, files = placed(version, smoke_keeping.of_version(version, now=now).inputs, max_bytes=MAX_FILES)
    for file in files:
        if not file.media_type.startswith(PICTURE_KINDS):
            raise Invalid(
                "smoke_file_not_carried",
                f"An image is tried with pictures only, and {file.input} of node {file.node} is {file.media_type}.",
                "The run through the queue tries this version whole.",
            )
    images = [{"name": file.name, "image": base64.b64encode(file.data).decode()} for file in files]
    return json.dumps({"input": {"workflow": graph, **({"images": images} if images else {})}}).encode()


def _feed(attached: Any, payload: bytes) -> None:
    """Write the payload and close the container's standard input."""
    raw = getattr(attached, "_sock", attached)
    try:
        raw.settimeout(60)
        raw.sendall(payload)
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it ended before it had read everything: its own answer says why
    finally:
        attached.close()


def _ended(container: Any, until: float) -> int | None:
    """The exit code, or None for one that had to be ended."""
    while time.monotonic() < until:
        container.reload()
        if container.status in ("exited", "dead"):
            return int(container.attrs["State"]["ExitCode"])
        time.sleep(POLL_S)
    with contextlib.suppress(Exception):
        container.kill()
    return None


def _bounded(chunks: Any) -> bytes:
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        if len(kept) > MAX_ANSWER:
            raise Invalid("smoke_output_too_large", f"The image answered more than {MAX_ANSWER:,} bytes.", "Write smaller inputs for the smoke run.")
    return bytes(kept)


def _outputs(said: Said) -> list[dict[str, Any]]:
    """The outputs an answer holds, measured. Raises Invalid with the image's own words where it failed."""
    if said.exit_code is None:
        raise Unavailable("smoke_timeout", f"The image was not done after {said.seconds:.0f} s.", f"It last said: {_last(said.log)}")
    line = said.answer.strip().rpartition(b"\n")[2]
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Invalid("image_gave_no_answer", f"The image ended with exit code {said.exit_code} and gave no answer.", f"It last said: {_last(said.log)}")
    if isinstance(error := answer.get("error"), dict):
        raise Invalid(str(error.get("code") or "unknown")[:64], str(error.get("message") or "")[:2000], str(error.get("suggestion") or _last(said.log))[:1000])
    output = answer.get("output")
    return [one for name in ("images", "files") for one in _measured(output, name)] + _texts(output)


def _measured(output: Any, name: str) -> list[dict[str, Any]]:
    rows = output.get(name) if isinstance(output, Mapping) else None
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, Mapping):
            continue
        kind = str(row.get("media_type") or "application/octet-stream")[:100]
        try:
            data = base64.b64decode(str(row.get("data") or ""), validate=True)
            measurements = measure.measure(data, kind)
        except (binascii.Error, ValueError):
            measurements = {"decodes": False}
        found.append({"name": str(row.get("filename") or name)[:120], "media_type": kind, "measurements": measurements})
    return found


def _texts(output: Any) -> list[dict[str, Any]]:
    texts = output.get("texts") if isinstance(output, Mapping) else None
    return [
        {"name": f"text {n}", "media_type": "text/plain", "measurements": {"decodes": True, "blank": not str(text).strip()}}
        for n, text in enumerate(texts if isinstance(texts, list) else [], start=1)
    ]


def _last(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())[:600] or "nothing"


def _remove(client: Any, name: str) -> None:
    import docker

    with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
        client.containers.get(name).remove(force=True, v=True)
