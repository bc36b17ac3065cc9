"""A pool of containers, sized by the real loops of a whole control plane while everything it stands on is taken away.

From none to four workers with jobs running; one is killed, one is paused for longer than its lease, the controller is
killed, the engine is killed and started again; then down to one, and to none. No job may be lost, none charged twice, and
no container may be left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from fleet.providers import docker_container as marks
from tests.docker.own_engine import OwnEngine, own_engine
from tests.integration.live_plane import Plane, until

QUEUED = 16
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 8421504}},
    "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": 1, "strength": 0.4}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "story"}},
}
SETUP = """
import json, sys
sys.path.insert(0, 'tests')
import factories
from django.utils import timezone
from builds.models import Workflow
from fleet import pools
now = timezone.now()
pools.create(slug='boxes', name='Boxes', provider='docker', base=0, maximum=4, price_per_hour_microusd=3_600_000, policy='threshold', knobs={{'idle_s': 3}},
    image={image!r}, actor='test', now=now,
    settings={{'network': 'host', 'memory_mib': 1024, 'env': {{'FLEET_ENGINE_FAULTS': 'slow=0.4'}}}})
Workflow.objects.filter(slug='story').update(pool_slug='boxes')
print(json.dumps({{'key': factories.make_key(factories.make_customer(now=now, slug='buyer'), now=now)[1]}}))
"""
# A scaler that took over lets nothing go for a while; that is tested where time can be set.
BASE = """
from django.utils import timezone
from fleet import pools
from fleet.models import Pool
pool = Pool.objects.get(slug='boxes')
pools.change(pool, {{'base': {base}}}, actor='test', now=timezone.now())
Pool.objects.filter(id=pool.id).update(memory={{}})
"""


# A lead ends with its lease when its controller was killed; that too is tested where time can be set.
EXPIRE = """
from django.utils import timezone
from controlplane.kernel.models import LoopLease
LoopLease.objects.update(expires_at=timezone.now())
"""


@pytest.fixture
def engine(docker_host: str) -> Iterator[OwnEngine]:
    """Beside the one the other tests use."""
    if os.getuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"):
        reason = "needs a Docker engine that may be killed: root, dockerd and ip"
        pytest.fail(reason) if os.environ.get("COMFYPLANE_REQUIRE_DOCKER") == "1" else pytest.skip(reason)
    with own_engine() as made:
        yield made


@dataclass
class Story:
    """What is looked at while it goes on, and the figures of it."""

    plane: Plane
    engine: OwnEngine
    counts: list[int] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    def containers(self, *states: str) -> dict[str, dict[str, Any]]:
        """Containers of the engine by instance."""
        client = docker.APIClient(base_url=self.engine.host, version="1.41", timeout=10)
        with contextlib.closing(client):
            rows = client.containers(all=True, filters={"label": marks.INSTALLATION})
        return {row["Labels"][marks.INSTANCE]: row for row in rows if not states or row["State"] in states}

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Read from its database beside it."""
        with contextlib.closing(sqlite3.connect(f"file:{self.plane.data_dir}/comfyplane.sqlite3?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(question).fetchall()

    def live(self) -> set[str]:
        return {row[0] for row in self.ask("select instance from fleet_worker where stopped_at is null")}

    def gone(self) -> Counter[str]:
        return Counter(row[0] for row in self.ask("select stop_reason from fleet_worker where stopped_at is not null"))

    def open_jobs(self) -> int:
        return int(self.ask("select count(*) from fleet_job where status in ('queued', 'running')")[0][0])

    def epoch(self) -> int:
        return int(self.ask("select epoch from kernel_looplease where name = 'workers'")[0][0])

    def working(self) -> str:
        """An instance that has a job and runs."""
        question = "select w.instance from fleet_worker w join fleet_job j on j.worker_id = w.id where j.status = 'running' and w.stopped_at is null"
        found: list[str] = []

        def looked() -> bool:
            running = self.containers("running")
            found[:] = [row[0] for row in self.ask(question) if row[0] in running]
            return bool(found)

        self.wait(looked, "a job runs")
        return found[0]

    def tell(self) -> str:
        """How it stands, for a failure's message."""
        said = [f"{self.counts}, ended {dict(self.gone())}, {self.open_jobs()} jobs open", self.plane.logs()]
        with contextlib.suppress(Exception):
            for instance, row in self.containers().items():
                _engine(self.engine, lambda api, id_=row["Id"]: said.append(api.logs(id_, tail=40).decode("utf-8", "replace")))
                said[-1] = f"== {instance} {row['Status']}\n{said[-1]}"
        return "\n".join(said)

    def wait(self, true: Callable[[], object], what: str, *, seconds: float = 90.0) -> float:
        """Seconds until it came true, the number of containers noted on the way."""
        began = time.monotonic()

        def looked() -> object:
            with contextlib.suppress(Exception):  # the engine may be away
                running = len(self.containers("running", "paused"))
                if not self.counts or self.counts[-1] != running:
                    self.counts.append(running)
            return true()

        until(looked, seconds=seconds, what=lambda: f"{what}: {self.tell()}", every_s=0.2)
        return round(time.monotonic() - began, 1)


@pytest.fixture
def story(builder: Any, engine: OwnEngine, docker_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    build = builder.build(builder.document(packs=[], classes=["EmptyImage", "ImageAddNoise", "SaveImage"]))
    assert build.state == "succeeded", build.error
    client = docker.DockerClient(base_url=engine.host, timeout=120)
    with contextlib.closing(client):
        client.images.load(docker_client.images.get(build.image_id).save(named=False, chunk_size=8_000_000))
    env = {"DEMO": "0", "BUILD_DOCKER_HOST": engine.host, "WORKER_LEASE_S": "4", "WORKER_HEARTBEAT_S": "1", "PROVIDER_RETRY_S": "3", "LOG_LEVEL": "WARNING"}
    plane = Plane(data_dir=tmp_path / "plane", env=env)
    try:
        plane.start()
        made = Story(plane, engine)
        made.told["image"] = build.image_id
        yield made
    finally:
        plane.end()


def test_no_job_is_lost_while_containers_controller_and_engine_are_killed(story: Story, tmp_path: Path, record_property: Any) -> None:
    plane, engine, told = story.plane, story.engine, story.told
    graph = tmp_path / "story.json"
    graph.write_text(json.dumps(GRAPH))
    plane.manage("import_workflow", str(graph), "--slug", "story", "--expose", "2.seed=seed", "--promote", "production")
    story.counts.append(len(story.containers()))
    key = json.loads(plane.manage("shell", "-v0", "-c", SETUP.format(image=told["image"])).stdout.splitlines()[-1])["key"]
    client = httpx.Client(base_url=f"http://127.0.0.1:{plane.port}", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False)
    began, fed = time.monotonic(), threading.Event()
    with client, ThreadPoolExecutor(4) as threads:
        feeder = threads.submit(_feed, story, client, fed)
        try:
            told["to four, s"] = story.wait(lambda: len(story.containers("running")) == 4, "four workers")
            victim = story.working()
            _engine(engine, lambda api: api.kill(story.containers()[victim]["Id"]))
            told["killed one was replaced, s"] = story.wait(lambda: victim not in story.live() and len(story.containers("running")) == 4, "a replacement")

            cut_off = story.working()
            id_ = story.containers()[cut_off]["Id"]
            _engine(engine, lambda api: api.pause(id_))
            told["paused one was given up, s"] = story.wait(lambda: cut_off not in story.live(), "the paused one is given up")
            with contextlib.suppress(docker.errors.APIError):  # it may have been ended before it could come back
                _engine(engine, lambda api: api.unpause(id_))
            story.wait(lambda: cut_off not in story.containers("running", "paused"), "the paused one goes when it comes back")

            story.wait(lambda: len(story.containers("running")) == 4, "four workers")
            before = set(story.containers("running"))
            epoch = story.epoch()
            os.kill(json.loads((plane.data_dir / "run" / "process-controller.json").read_text())["pid"], signal.SIGKILL)
            plane.manage("shell", "-c", EXPIRE)
            told["new controller led, s"] = story.wait(lambda: story.epoch() > epoch, "another controller leads")
            time.sleep(2)  # two rounds of its loops
            assert before <= set(story.containers("running")) and before <= story.live(), "what it found it adopted"

            engine.kill()
            time.sleep(3)  # three rounds without it
            assert story.open_jobs() > 0, "it has not all been done before"
            down = story.live()
            told["engine back, s"] = round(engine.start(), 1)
            told["workers that outlived the engine"] = len(down & set(story.containers("running")))
            story.wait(lambda: len(story.containers("running")) == 4, "four workers")
        finally:
            fed.set()
        ids = feeder.result()
        told["all jobs ended, s"] = story.wait(lambda: story.open_jobs() == 0, "every job ends", seconds=120)
        jobs = [client.get(f"/v1/jobs/{id_}").json() for id_ in ids]
        assert len(set(ids)) == len(ids)

        plane.manage("shell", "-c", BASE.format(base=1))
        told["to one, s"] = story.wait(lambda: len(story.containers("running")) == 1 == len(story.live()), "one worker is left")
        last = _send(client, len(ids))
        story.wait(lambda: client.get(f"/v1/jobs/{last}").json()["status"] == "succeeded", "the one that is left works")
        plane.manage("shell", "-c", BASE.format(base=0))
        told["to none, s"] = story.wait(lambda: story.containers() == {} and not story.live(), "nobody is left, nor anything of anybody")
    ended = Counter(job["status"] for job in jobs)
    lost = Counter(story.gone())
    told |= {
        "jobs": len(ids),
        "ended": dict(ended),
        "attempts": story.ask("select count(*) from fleet_attempt")[0][0],
        "containers over time": story.counts,
        "workers ended": dict(lost),
        "seconds": round(time.monotonic() - began),
    }
    record_property("story", json.dumps(told))
    logging.getLogger(__name__).warning("story: %s", json.dumps(told))
    assert ended == {"succeeded": len(ids)}, [job for job in jobs if job["status"] != "succeeded"]
    assert all(len(job["outputs"]) == 1 for job in jobs)
    assert max(story.counts) == 4 and story.counts[0] == 0 and story.counts[-1] == 0, "never more than the maximum"
    books = json.loads(plane.manage("reconcile", "--json").stdout)
    assert books["drift"] == 0 and books["terminal_jobs"] > len(ids)
    assert plane.stop() == 0 and plane.processes() == []


def _feed(story: Story, client: httpx.Client, done: threading.Event) -> list[str]:
    """Keep jobs waiting until told; the ids of all."""
    ids: list[str] = []
    while not done.wait(0.1):
        ids += [_send(client, len(ids) + n) for n in range(QUEUED - story.open_jobs())]
    return ids


def _send(client: httpx.Client, number: int) -> str:
    """One job, always under the same key."""
    answer = client.post("/v1/workflows/story/jobs", json={"inputs": {"seed": number}}, headers={"Idempotency-Key": f"story-{number}"})
    assert answer.status_code in (200, 201, 202), answer.text
    return str(answer.json()["id"])


def _engine(engine: OwnEngine, asked: Callable[[Any], Any]) -> None:
    client = docker.APIClient(base_url=engine.host, version="1.41", timeout=20)
    with contextlib.closing(client):
        asked(client)
