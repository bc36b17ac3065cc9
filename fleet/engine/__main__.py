"""Start the embedded engine: `python -m fleet.engine --port 8188`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import uvicorn

from fleet.engine import faults
from fleet.engine.directories import Directories
from fleet.engine.memory import DEFAULT_BYTES, MemoryBudget


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet.engine", description="ComfyUI's protocol, executing the model-free core nodes.")
    parser.add_argument("--listen", default="127.0.0.1", help="address to bind (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8188, help="port to bind, 0 for a free one (default: %(default)s)")
    for name in ("input", "output", "temp", "models"):
        parser.add_argument(f"--{name}-directory", type=Path, help="default: a temporary directory, removed at exit")
    parser.add_argument("--memory-budget", type=int, default=DEFAULT_BYTES, metavar="BYTES", help="arrays may take this much (default: %(default)s)")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[=VALUE]", help="slow=S, crash-after=N, hang-after=N, oom-after=N, drop-socket=N")
    parser.add_argument("--allow-faults", action="store_true", help="let POST /_fault change the faults while running")
    return parser.parse_args(words)


class Announced(uvicorn.Server):
    """A server that says on stdout when and where it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if sockets and not self.should_exit:
            print(json.dumps({"ready": True, "port": sockets[0].getsockname()[1]}), flush=True)  # noqa: T201 - whoever started the process reads this line


def main(words: list[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if words is None else words)
    # One thread per product: the small ones here lose more to waiting for each other than they gain.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # After that setting, because it is read when numpy is first imported.
    from fleet.engine.engine import Engine
    from fleet.engine.server import application

    switches = faults.Faults()
    switches.set(faults.parse([os.environ.get(faults.ENVIRONMENT, ""), *options.fault]))
    with contextlib.ExitStack() as stack:
        given = {name: getattr(options, f"{name}_directory") for name in ("input", "output", "temp", "models")}
        if None in given.values():
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-engine-", ignore_cleanup_errors=True)))
        if given["temp"] is not None:
            # Temporary outputs do not outlive the process that made them.
            given["temp"] = given["temp"] / "temp"
            shutil.rmtree(given["temp"], ignore_errors=True)
        paths = {name: (path or scratch / name).resolve() for name, path in given.items()}
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
        engine = Engine(Directories(**paths), memory=MemoryBudget(options.memory_budget), faults=switches, allow_faults=options.allow_faults)
        # The server raises the signal again after its own shutdown; scratch files go then.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        listener = socket.create_server((options.listen, options.port))
        # asyncio does this only for sockets it makes itself; without it each small answer waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            application(engine), log_level="warning", lifespan="on", ws="websockets-sansio", ws_max_size=1 << 24, timeout_graceful_shutdown=1
        )
        Announced(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
