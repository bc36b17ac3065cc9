"""Added latency on an idle fleet: from the answer to POST until the prompt's first byte reaches the engine, in ms.

The whole of `manage.py up` on a PostgreSQL of its own; the engine stands behind a relay of this script that notes when
`POST /prompt` passes. Both clocks are this process's own. Asked: p50 ≤ 50 ms.

    python bench/dispatch_latency.py [--jobs 60] [--sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.throwaway_postgres import cluster  # noqa: E402


class Relay:
    """A TCP relay in a thread that stamps each `POST /prompt` on its way to the engine."""

    def __init__(self, upstream: int) -> None:
        self.upstream, self.port, self.seen = upstream, 0, []
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True).start()
        started.wait(10)

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, watch: bool) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    if watch and data.startswith(b"POST /prompt "):
                        self.seen.append(time.time())
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, up_writer, True), pump(up_reader, writer, False))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(jobs: int, database: str | None) -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        engine = subprocess.Popen([sys.executable, "-m", "fleet.engine", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert engine.stdout
        relay = Relay(json.loads(engine.stdout.readline())["port"])
        port = free_port()
        environment = {**os.environ, "DATA_DIR": home, "PORT": str(port), "COMFYUI_URL": f"http://127.0.0.1:{relay.port}", "LOG_LEVEL": "WARNING"}
        if database:
            environment["DATABASE_URL"] = database
        up = subprocess.Popen([sys.executable, "manage.py", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert up.stdout
        try:
            for line in up.stdout:
                if "Ctrl-C" in line:
                    break
            threading.Thread(target=up.stdout.read, daemon=True).start()
            told = subprocess.run([sys.executable, "manage.py", "credentials", "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            access = json.loads(told.stdout)
            with httpx.Client(base_url=access["base_url"], headers={"Authorization": f"Bearer {access['api_key']}"}, timeout=60, trust_env=False) as api:
                until = time.monotonic() + 120
                while time.monotonic() < until:  # the demo history must be over: an idle fleet is what is measured
                    text = httpx.get(f"{access['base_url']}/metrics", timeout=10, trust_env=False).text
                    depth = sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("comfyplane_queue_depth"))
                    before = len(relay.seen)
                    time.sleep(3)
                    if depth == 0 and len(relay.seen) == before:
                        break
                latencies = []
                for number in range(jobs + 3):
                    sent_before = len(relay.seen)
                    answer = api.post("/v1/workflows/headline/jobs", json={"inputs": {"text": f"Run {number}"}})
                    accepted = time.time()
                    assert answer.status_code == 202, answer.text
                    until = time.monotonic() + 20
                    while len(relay.seen) == sent_before and time.monotonic() < until:
                        time.sleep(0.001)
                    latencies.append((relay.seen[sent_before] - accepted) * 1000)
                    api.get(answer.headers["Location"], headers={"Prefer": "wait=30"})
                    time.sleep(0.15)
                return latencies[3:]
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
            engine.terminate()
            engine.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--sqlite", action="store_true", help="measure on SQLite in place of PostgreSQL")
    options = parser.parse_args()
    with contextlib.nullcontext(None) if options.sqlite else cluster() as url:
        found = sorted(measure(options.jobs, url))
    pick = lambda q: found[min(len(found) - 1, int(q * len(found)))]  # noqa: E731
    print(
        f"accepted → prompt reaches the engine, {'SQLite' if options.sqlite else 'PostgreSQL'}, n={len(found)}: p50 {pick(0.5):.0f} ms, p95 {pick(0.95):.0f} ms, max {found[-1]:.0f} ms (asked: p50 ≤ 50 ms)"
    )


if __name__ == "__main__":
    main()
