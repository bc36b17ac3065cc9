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
        # A new one does not take over the file of one that was killed.
        (self.scratch / "dockerd.pid").unlink(missing_ok=True)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for left in psutil.process_iter(["cmdline"]):  # what a killed engine left, known by the directory it works in
            if any(str(self.scratch) in word for word in left.info["cmdline"] or []):
                with contextlib.suppress(psutil.Error):
                    left.kill()
