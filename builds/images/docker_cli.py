"""Docker, as far as building goes: BuildKit through the command line, everything else through the SDK.

The SDK can only drive the classic builder, which knows no cache mounts and no secrets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import docker
from django.conf import settings
from docker.errors import DockerException, ImageNotFound

from controlplane.kernel.errors import Invalid, Unavailable

MAX_LINE = 20_000
ENDING_S = 3.0
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "amd64": "amd64"}
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Docker:
    """How to reach the engine, and what a build may use."""

    program: str
    host: str
    network: str = "default"
    ca_bundle: str = ""
    pip_conf: str = ""
    platforms: tuple[str, ...] = ()

    @classmethod
    def of_settings(cls) -> Docker:
        """As the environment says (settings.BUILD)."""
        build = settings.BUILD
        # Debian's client has BuildKit built in; a newer one elsewhere in the path may lack its plug-in.
        program = build["DOCKER"] or next((p for p in ("/usr/bin/docker",) if Path(p).is_file()), "") or shutil.which("docker") or ""
        return cls(
            program=program,
            host=build["DOCKER_HOST"],
            network=build["NETWORK"],
            ca_bundle=build["CA_BUNDLE"],
            pip_conf=build["PIP_CONF"],
            platforms=tuple(build["PLATFORMS"]),
        )

    def builds(self, wanted: str) -> bool:
        """Whether images for this platform can be made here, without asking Docker: it would say yes and make another."""
        return wanted in (self.platforms or (f"linux/{_ARCHES.get(platform.machine(), platform.machine())}",))

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """The SDK's client. Raises Unavailable `docker_unavailable`."""
        try:
            client = docker.DockerClient(base_url=self.host, timeout=120)
        except (DockerException, OSError) as error:
            raise unavailable(str(error)) from error
        try:
            yield client
        finally:
            client.close()

    def check(self) -> str:
        """The engine's version. Raises Unavailable `docker_unavailable` when it does not answer or there is no client program."""
        if not self.program or not Path(self.program).is_file():
            raise unavailable("there is no docker command")
        with self.client() as client:
            try:
                return str(client.version()["Version"])
            except (DockerException, OSError, KeyError) as error:
                raise unavailable(str(error)) from error

    def base(self, reference: str, digest: str) -> str:
        """What FROM should say so that it is surely the image of the lock: by digest, or by name once its id was seen to be that one."""
        if not digest:
            return reference
        with self.client() as client, contextlib.suppress(ImageNotFound, DockerException):
            if client.images.get(reference).id == digest:
                return reference
        name = reference.partition("@")[0]
        return f"{name}@{digest}"

    def build(self, context: BinaryIO, *, tag: str, labels: dict[str, str], iidfile: Path) -> Building:
        """Start a build of the tar in `context`."""
        command = [self.program, "build", "--progress=plain", "--network", self.network, "--iidfile", str(iidfile), "--tag", tag]
        for name, value in labels.items():
            command += ["--label", f"{name}={value}"]
        for name, path in (("ca", self.ca_bundle), ("pipconf", self.pip_conf)):
            if path:
                if not Path(path).is_file():
                    raise Invalid("secret_missing", f"The file for {name} is not there.", "Check BUILD_CA_BUNDLE and BUILD_PIP_CONF.")
                command += ["--secret", f"id={name},src={path}"]
        return Building([*command, "-"], context, {**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1"})


class Building:
    """A running build: its lines, and a way to end it."""

    def __init__(self, command: list[str], context: BinaryIO, env: dict[str, str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=context,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                preexec_fn=_end_with_parent if _libc is not None else None,
            )
        except OSError as error:
            raise unavailable(str(error)) from error
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=10_000)
        threading.Thread(target=self._read, name="build-lines", daemon=True).start()

    def lines(self, *, wait_s: float) -> list[str] | None:
        """What was said since the last call, after waiting up to `wait_s` for more; None once all was said."""
        end = time.monotonic() + wait_s
        found: list[str] = []
        while (left := end - time.monotonic()) > 0 and len(found) < 500:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                self._lines.put(None)
                return found or None
            found.append(line)
        return found

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait()

    def end(self) -> None:
        """Stop it; the engine stops with its client. Returns when the client is gone."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while raw := stream.readline(MAX_LINE):
                self._lines.put(raw.decode("utf-8", "replace"))
        self._lines.put(None)


@contextlib.contextmanager
def generated_pip_conf(index: str, find_links: tuple[str, ...]) -> Iterator[str]:
    """A pip.conf for an index of our own, gone afterwards; "" when there is nothing to say."""
    links = [link for link in find_links if link.startswith(("http://", "https://"))]
    if not index and not links:
        yield ""
        return
    hosts = {part.partition("://")[2].split("/", 1)[0].rpartition("@")[2].partition(":")[0] for part in (index, *links) if part.startswith("http://")}
    lines = ["[global]", *([f"index-url = {index}"] if index else []), *([f"find-links = {' '.join(links)}"] if links else [])]
    lines += [f"trusted-host = {' '.join(sorted(hosts))}"] if hosts else []
    with tempfile.NamedTemporaryFile("w", prefix="pip-", suffix=".conf") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        yield file.name


def unavailable(reason: str) -> Unavailable:
    return Unavailable(
        "docker_unavailable",
        "No Docker engine answers here.",
        "Start one, and say where it is in BUILD_DOCKER_HOST (docs/builds.md); then build again.",
        details={"reason": reason[:300]},
    )


def _end_with_parent() -> None:
    """Runs in the child: a killed builder must not leave a build that nobody waits for."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
