"""Claim latency with a big fleet waiting: from the answer to POST until a worker holds the job, in ms.

The whole of `manage.py up` on a PostgreSQL of its own; 200 workers of this script long-poll one pool, and jobs come a few a second,
each taken by one of them and completed at once. Asked: p95 ≤ 100 ms. Both clocks are this process's own.

    python bench/long_poll.py [--workers 200] [--jobs 150] [--per-second 8]
"""

from __future__ import annotations

import argparse
import asyncio
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
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.throwaway_postgres import cluster  # noqa: E402

PREPARE = """
from datetime import UTC, datetime
from builds.models import Workflow
from fleet import pools, tokens
pool = pools.create(slug="bench", name="Bench", provider="external", base=0, maximum=500, price_per_hour_microusd=0, actor="bench", now=datetime.now(UTC))
Workflow.objects.filter(slug="headline").update(pool_slug="bench", result_cache_s=0)
print("TOKEN", tokens.pool_token(pool))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Fleet:
    """Workers that take jobs and complete them at once, and note when each came."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self.taken = base_url, dict[str, float]()

    async def worker(self, http: httpx.AsyncClient, pool_token: str, number: int, waiting: asyncio.Semaphore) -> None:
        async with waiting:
            answer = await http.post(
                "/worker/v1/register",
                headers={"Authorization": f"Bearer {pool_token}"},
                json={"protocol": 1, "instance": f"bench-{number}", "name": f"b{number}", "fingerprint": {"engine": "bench"}},
            )
        answer.raise_for_status()
        mine = {"Authorization": f"Bearer {answer.json()['token']}"}
        while True:
            answer = await http.post("/worker/v1/claim", headers=mine, json={"wait_s": 20, "warm": [], "max_jobs": 1})
            came = time.time()
            if answer.status_code != 200:
                await asyncio.sleep(0.5)
                continue
            for job in answer.json()["jobs"]:
                self.taken[job["job"]] = came
                await http.post(
                    f"/worker/v1/jobs/{job['job']}/attempts/{job['attempt']}/complete",
                    headers=mine,
                    json={"outcome": "succeeded", "outputs": [], "timings": {}},
                )


async def drive(access: dict[str, Any], pool_token: str, *, workers: int, jobs: int, per_second: float) -> list[float]:
    fleet = Fleet(access["base_url"])
    limits = httpx.Limits(max_connections=workers + 20, max_keepalive_connections=workers + 20)
    async with httpx.AsyncClient(base_url=access["base_url"], timeout=40, limits=limits, trust_env=False) as http:
        waiting = asyncio.Semaphore(8)
        polls = [asyncio.create_task(fleet.worker(http, pool_token, n, waiting)) for n in range(workers)]
        await asyncio.sleep(12)
        accepted: dict[str, float] = {}
        for number in range(jobs):
            answer = await http.post(
                "/v1/workflows/headline/jobs", headers={"Authorization": f"Bearer {access['api_key']}"}, json={"inputs": {"text": f"Run {number}"}}
            )
            assert answer.status_code == 202, answer.text
            accepted[answer.json()["id"]] = time.time()
            await asyncio.sleep(1 / per_second)
        until = time.time() + 20
        while len(fleet.taken) < jobs and time.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
    lost = [job for job in accepted if job not in fleet.taken]
    assert not lost, f"{len(lost)} jobs were never claimed"
    return [max(0.0, fleet.taken[job] - at) * 1000 for job, at in accepted.items()]


def measure(database: str, **how: Any) -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        environment = {**os.environ, "DATA_DIR": home, "PORT": str(port), "LOG_LEVEL": "WARNING", "DATABASE_URL": database}
        up = subprocess.Popen([sys.executable, "manage.py", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert up.stdout
        try:
            for line in up.stdout:
                if "Ctrl-C" in line:
                    break
            threading.Thread(target=up.stdout.read, daemon=True).start()

            def manage(*command: str) -> str:
                return subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

            access = json.loads(manage("credentials", "--json"))
            until = time.monotonic() + 120
            while time.monotonic() < until:  # the demo history must be over
                text = httpx.get(f"{access['base_url']}/metrics", timeout=10, trust_env=False).text
                if not sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("comfyplane_queue_depth")):
                    break
                time.sleep(2)
            pool_token = next(line.split()[1] for line in manage("shell", "-c", PREPARE).splitlines() if line.startswith("TOKEN"))
            return asyncio.run(drive(access, pool_token, **how))
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=150)
    parser.add_argument("--per-second", type=float, default=8.0)
    options = parser.parse_args()
    with cluster() as url:
        found = sorted(measure(url, workers=options.workers, jobs=options.jobs, per_second=options.per_second))
    pick = lambda q: found[min(len(found) - 1, int(q * len(found)))]  # noqa: E731
    print(
        f"accepted → claimed, {options.workers} workers long-polling, {options.per_second:g} jobs/s, n={len(found)}: p50 {pick(0.5):.0f} ms, p95 {pick(0.95):.0f} ms, max {found[-1]:.0f} ms (asked: p95 ≤ 100 ms)"
    )


if __name__ == "__main__":
    main()
