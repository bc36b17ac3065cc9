"""Jobs by the hundred (five hundred in CI) while agents, engines, controller, web and stream are killed at random.

All end, once, with their outputs, and the books agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from bench.throwaway_postgres import cluster
from tests.integration.live_plane import Plane, agents, engines, needs_postgres

THOROUGH = os.environ.get("COMFYPLANE_REQUIRE_POSTGRES") == "1"
JOBS = int(os.environ.get("COMFYPLANE_CHAOS_JOBS") or (500 if THOROUGH else 80))
KILLING_S = 80.0 if JOBS >= 300 else 25.0
LIMIT_S = 900.0  # on a machine with much else to do
SEED = 20260302
TERMINAL = {"succeeded", "failed", "canceled", "expired"}
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 8421504}},
    "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": 1, "strength": 0.4}},
    "3": {"class_type": "ImageBlur", "inputs": {"image": ["2", 0], "blur_radius": 4, "sigma": 1.0}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "chaos"}},
}
_TWO_WORKERS = "from fleet.models import Pool; Pool.objects.update(base=2, max=2)"


@pytest.fixture(params=["sqlite", "postgresql"])
def plane(request: pytest.FixtureRequest, make_plane) -> Iterator[Plane]:
    with contextlib.ExitStack() as stack:
        env = {"WORKER_LEASE_S": "6", "LOG_LEVEL": "WARNING"}
        if request.param == "postgresql":
            needs_postgres()
            env["DATABASE_URL"] = stack.enter_context(cluster(durable=False))
        yield make_plane(env=env)


@pytest.mark.thorough
def test_nothing_is_lost_and_nothing_is_charged_twice_while_processes_are_killed(plane: Plane, tmp_path, record_property) -> None:
    plane.start()
    graph = tmp_path / "chaos.json"
    graph.write_text(json.dumps(GRAPH))
    plane.manage("import_workflow", str(graph), "--slug", "chaos", "--expose", "2.seed=seed", "--promote", "production")
    plane.manage("shell", "-c", _TWO_WORKERS)
    done = threading.Event()
    began = time.monotonic()
    killed: Counter[str] = Counter()
    with plane.client() as client, ThreadPoolExecutor(5) as threads:
        killer = threads.submit(_kill, plane, done, killed)
        try:
            ids = list(threads.map(lambda number: _send(client, number), range(JOBS)))
            while not _enough(killed) and not killer.done():  # a quick machine would be through before much was killed
                ids.append(_send(client, len(ids)))
            sent_s = time.monotonic() - began
            left = _wait(client, ids, until=began + LIMIT_S)
        finally:
            done.set()
        killer.result()
        assert not left, f"{len(left)} of {len(ids)} jobs did not end; killed {dict(killed)}\n{plane.logs()}"
        jobs = list(threads.map(lambda job_id: _get(client, f"/v1/jobs/{job_id}"), ids))
        assert len(set(ids)) == len(ids) >= JOBS
        missing = [job["id"] for job, whole in zip(jobs, threads.map(lambda job: _whole(client, job), jobs), strict=True) if not whole]
    ended = Counter(job["status"] for job in jobs)
    figures = f"{len(ids)} jobs, {sent_s:.0f} s to send, {time.monotonic() - began:.0f} s in all, killed {dict(killed)}, ended {dict(ended)}"
    record_property("figures", figures)
    logging.getLogger(__name__).warning(figures)
    assert not missing, f"outputs of {len(missing)} jobs are missing or not what was measured"
    assert _enough(killed)
    for job in jobs:  # only those that lost every try may have failed, and then nothing was charged
        assert job["status"] == "succeeded" or (job["status"] == "failed" and float(job["price_usd"]) == 0), job
    assert ended["succeeded"] >= 0.97 * len(ids)
    books = json.loads(plane.manage("reconcile", "--json").stdout)
    assert books["drift"] == 0 and books["terminal_jobs"] >= len(ids)
    assert plane.stop() == 0
    assert plane.processes() == []


def _send(client: httpx.Client, number: int) -> str:
    """One job, sent until it was taken, always under the same key."""
    until, refused = time.monotonic() + LIMIT_S, ""
    while time.monotonic() < until:
        try:
            answer = client.post("/v1/workflows/chaos/jobs", json={"inputs": {"seed": number}}, headers={"Idempotency-Key": f"chaos-{number}"})
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code in (200, 201, 202):
            return str(answer.json()["id"])
        assert answer.status_code in (409, 429, 502, 503), answer.text
        refused = f"{answer.status_code} {answer.text[:300]}"
        time.sleep(0.3)
    raise AssertionError(f"job {number} was never taken: {refused}")


def _get(client: httpx.Client, url: str) -> dict[str, Any]:
    for _ in range(100):
        with contextlib.suppress(httpx.TransportError):
            answer = client.get(url)
            if answer.status_code == 200:
                told: dict[str, Any] = answer.json()
                return told
            assert answer.status_code in (429, 502, 503), answer.text
        time.sleep(0.3)
    raise AssertionError(f"{url} never answered")


def _wait(client: httpx.Client, ids: list[str], *, until: float) -> set[str]:
    """Wait until all ended; those that did not in time."""
    left = set(ids)
    while left and time.monotonic() < until:
        for job_id in sorted(left)[:40]:
            if _get(client, f"/v1/jobs/{job_id}")["status"] in TERMINAL:
                left.discard(job_id)
        time.sleep(0.3)
    return left


def _whole(client: httpx.Client, job: dict[str, Any]) -> bool:
    """Whether everything a succeeded job shows can be had, byte for byte."""
    if job["status"] != "succeeded":
        return not job["outputs"]
    for output in job["outputs"]:
        for _ in range(50):
            with contextlib.suppress(httpx.TransportError):
                got = client.get(output["url"])
                if got.status_code == 200:
                    break
            time.sleep(0.3)
        if hashlib.sha256(got.content).hexdigest() != output["sha256"] or len(got.content) != output["bytes"]:
            return False
    return len(job["outputs"]) == 1


def _enough(killed: Counter[str]) -> bool:
    return sum(killed.values()) >= 5 and set(killed) >= {"agent", "engine", "web", "controller"}


def _kill(plane: Plane, done: threading.Event, killed: Counter[str]) -> None:
    """SIGKILL one process after another, in an order the seed decides, and count them."""
    rng = random.Random(SEED)
    order = ["agent", "engine", "web", "controller"]
    end = time.monotonic() + KILLING_S
    while time.monotonic() < end and not done.wait(rng.uniform(1.0, 2.5)):
        kind = order.pop(0) if order else rng.choices(["agent", "engine", "web", "controller", "stream"], weights=[6, 6, 3, 1, 2])[0]
        # Workers that die again and again before they have begun are a crash loop, which stops ordering until a person looks.
        victims = [p for p in _of(plane, kind) if time.time() - p.create_time() > (15 if kind == "agent" else 4)]
        if not victims:
            order.append(kind)
            continue
        with contextlib.suppress(psutil.Error):
            rng.choice(victims).send_signal(signal.SIGKILL)
            killed[kind] += 1


def _of(plane: Plane, kind: str) -> list[psutil.Process]:
    if kind == "agent":
        return agents(plane)
    if kind == "engine":
        return engines(plane)
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        noted = json.loads((plane.data_dir / "run" / f"process-{kind}.json").read_text())
        main = psutil.Process(noted["pid"])
        return [main, *main.children()] if kind == "web" else [main]
    return []
