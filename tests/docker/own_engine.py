"""A Docker engine that a test may kill: nobody else uses it, and its bridge is its own, so that no other engine is disturbed."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.docker.docker_world import answers
from tests.integration.live_plane import until


@contextlib.contextmanager
def own_engine() -> Iterator[OwnEngine]:
    """Started; gone with everything of it at the end. Needs root and dockerd."""
    mark = secrets.token_hex(2)
    bridge = f"cpt{mark}"
    scratch = Path(tempfile.mkdtemp(prefix="cpo-"))  # a socket's path may be 107 characters long
    octet = 16 + int(mark[:2], 16) % 200
    for words in (["link", "add", bridge, "type", "bridge"], ["addr", "add", f"10.213.{octet}.1/24", "dev", bridge], ["link", "set", bridge, "up"]):
        subprocess.run(["ip", *words], check=True, capture_output=True)
    engine = OwnEngine(scratch, bridge)
    try:
        engine.start()
        yield engine
    finally:
        engine.end()
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class OwnEngine:
    """A dockerd in `scratch`."""

    scratch: Path
    bridge: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.scratch}/docker.sock"

    def start(self) -> float:
        """The seconds until it answered."""
        began = time.monotonic()
        with (self.scratch / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("dockerd", "--data-root", str(self.scratch / "data"), "--exec-root", str(self.scratch / "exec"), "-H", self.host),
                    *("--pidfile", str(self.scratch / "dockerd.pid"), "--bridge", self.bridge),
                    *("--iptables=false", "--ip6tables=false", "--ip-masq=false"),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until(lambda: answers(self.host), seconds=40, what=lambda: (self.scratch / "dockerd.log").read_text()[-2000:], every_s=0.2)
        return time.monotonic() - began

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        # Its containerd dies with it, a moment later. A new engine takes whom these files name for alive, even one that only waits to be reaped.
        file = self.scratch / "exec/containerd/containerd.pid"
        containerd = int(file.read_text())
        until(lambda: not _alive(containerd), seconds=10)
        file.unlink()
        (self.scratch / "dockerd.pid").unlink(missing_ok=True)

    def end(self) -> None:
        """At once: nobody will miss what was in it."""
        for _ in range(3):  # what is ended may have begun something
            for left in self.processes():
                with contextlib.suppress(psutil.Error):
                    left.kill()
            psutil.wait_procs(self.processes(), timeout=5)
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1].startswith(f"{self.scratch}/")]
        for path in sorted(mounted, reverse=True):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)

    def processes(self) -> list[psutil.Process]:
        """Whatever works in its directory: the engine, its containerd, and what holds its containers."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.scratch) in word for word in process.info["cmdline"] or []):
                found.append(process)
                with contextlib.suppress(psutil.Error):
                    found += process.children(recursive=True)
        return found


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
