"""What the Docker provider makes of an engine that is down, slow, full, confused, or has just come back. Real engines are in tests/docker."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fleet import workers
from fleet.models import Pool, PoolOffer, Worker
from fleet.providers import docker_container, docker_engine
from fleet.providers.base import NoCapacity, Refused, Unavailable
from fleet.providers.docker import Docker
from tests import factories

pytestmark = pytest.mark.django_db
CREATED = (201, {"Id": "c1", "Warnings": []})
GONE = (404, {"message": "No such container: c1"})
Answer = tuple[int, Any]


@dataclass
class FakeEngine:
    """Speaks as much of the Docker API as is asked of it. `says` maps "METHOD /path" to an answer, or to a function of the request's body."""

    says: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    hang_up: int = 0
    silent: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    host: str = ""

    def answer(self, what: str, body: Any) -> Answer | bytes:
        self.asked.append((what, body))
        given = self.says.get(what)
        if callable(given):
            given = given(body)
        if given is not None:
            return given
        if what == "GET /version":
            return 200, {"ApiVersion": "1.41", "Version": "20.10"}
        if what == "GET /containers/json":
            return 200, self.rows
        if what == "POST /containers/create":
            return CREATED
        if what == "GET /containers/c1/json":
            return 200, {"Id": "c1", "State": {"Status": "created"}}
        if re.fullmatch(r"POST /containers/c1/(start|kill|stop)|DELETE /containers/c1", what):
            return 204, None
        return 404, {"message": f"page not found: {what}"}

    def counted(self, what: str) -> int:
        return sum(1 for one, _ in self.asked if one == what)

    def body(self, what: str) -> Any:
        return next(body for one, body in self.asked if one == what)


def handler_of(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            if engine.silent is not None:
                engine.silent.wait(10)
            if engine.hang_up:
                engine.hang_up -= 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            path = re.sub(r"^/v1\.\d+", "", self.path.partition("?")[0])
            answered = engine.answer(f"{self.command} {path}", body)
            status, said = answered if isinstance(answered, tuple) else (200, answered)
            data = said if isinstance(said, bytes) else b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **engine.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_any

        def log_message(self, *_: object) -> None:
            return

    return Handler


@pytest.fixture
def start() -> Iterator[Callable[[], FakeEngine]]:
    servers: list[ThreadingHTTPServer] = []

    def begin() -> FakeEngine:
        engine = FakeEngine()
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(engine))
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked may be gone by the time it answers
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        engine.host = f"tcp://127.0.0.1:{server.server_address[1]}"
        return engine

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def engine(start: Callable[[], FakeEngine]) -> FakeEngine:
    return start()


@pytest.fixture
def provider() -> Docker:
    return Docker(installation="0123456789abcdef")


def make_pool(engine: FakeEngine, now: datetime, **more: Any) -> Pool:
    told = {"host": engine.host, "url": "http://plane.example", **more.pop("settings", {})}
    return factories.make_pool(now=now, provider="docker", image="workers@sha256:" + "1" * 64, settings=told, **more)


def ordered(pool: Pool, now: datetime, **more: Any) -> Worker:
    row = {"state": "ordered", "registered_at": None, "ready_at": None, "idle_since": None, "seen_at": None, "gpu": pool.gpu}
    return factories.make_worker(pool, now=now, **(row | more))


def row(provider: Docker, worker: Worker, state: str = "running", **more: Any) -> dict[str, Any]:
    labels = {docker_container.INSTALLATION: provider.installation, docker_container.INSTANCE: worker.instance, **more.pop("labels", {})}
    return {"Id": "c1", "State": state, "Status": "Up 2 minutes", "Created": 1_700_000_000, "Labels": labels, **more}


def refused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- an engine that does not answer ----------------------------------------------------------------


def test_an_engine_that_is_down_makes_nothing_known(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    engine.host = f"tcp://127.0.0.1:{refused_port()}"
    pool = make_pool(engine, now)
    with pytest.raises(Unavailable, match="cannot be reached"):
        provider.observe(pool)
    with pytest.raises(Unavailable):
        provider.launch(ordered(pool, now))
    with pytest.raises(Unavailable):
        provider.stop({"container": "c1", "host": engine.host})
    assert provider.boot_log({"container": "c1", "host": engine.host}) == []


def test_an_engine_that_does_not_answer_costs_a_bounded_time(provider: Docker, engine: FakeEngine, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(engine, now)
    provider.observe(pool)
    engine.silent = threading.Event()
    known = provider.engine(engine.host)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer within 1 s"):
        known.call(lambda api: api.containers(), within_s=1)
    assert time.monotonic() - began < 4
    engine.silent.set()
    engine.silent = None
    with pytest.raises(Unavailable, match="asked again in"):
        provider.observe(pool)
    monkeypatch.setattr(docker_engine, "REST_S", 0.0)
    known._rest_until = time.monotonic()
    assert provider.observe(pool).instances == {}, "and is asked again"


def test_a_hundred_workers_on_a_silent_engine_cost_one_short_look(provider: Docker, engine: FakeEngine, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "ALIVE_S", 1)
    monkeypatch.setattr(docker_engine, "FRESH_S", 0.0)
    pool = make_pool(engine, now)
    provider.observe(pool)
    engine.silent = threading.Event()
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable, match="did not answer within 1 s"):
            provider.observe(pool)
        for n in range(100):
            with pytest.raises(Unavailable, match="asked again in"):
                provider.stop({"container": f"c{n}", "host": engine.host}, force=True)
    finally:
        engine.silent.set()
    assert time.monotonic() - began < 3


def test_an_engine_that_was_started_again_is_asked_again_at_once(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    pool = make_pool(engine, now)
    provider.observe(pool)
    engine.hang_up = 1
    assert provider.observe(pool).instances == {}


@pytest.mark.parametrize(
    "said", [b"<html>", b"", b"null", b"{}", b'""', b"[1]", b'{"a": 1}', b'[{"Id": "c1"}]', b'[{"Id": "c1", "Labels": null}]', b'"x"', b"\xff\xfe", b"[" * 5000]
)
def test_nonsense_is_not_taken_for_an_empty_pool(provider: Docker, engine: FakeEngine, now: datetime, said: bytes) -> None:
    pool = make_pool(engine, now)
    engine.says["GET /containers/json"] = lambda _: said
    with pytest.raises(Unavailable):
        provider.observe(pool)


def test_an_engine_that_fails_says_nothing_of_its_containers(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    pool = make_pool(engine, now)
    engine.says["GET /containers/json"] = (500, {"message": "database is locked"})
    with pytest.raises(Unavailable, match="database is locked"):
        provider.observe(pool)
    engine.says["GET /containers/json"], engine.headers = (429, {"message": "slow down"}), {"Retry-After": "7"}
    with pytest.raises(Unavailable) as told:
        provider.observe(pool)
    assert told.value.retry_after_s == 7.0


def test_a_message_of_the_engine_is_cut_and_cannot_play_tricks(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    engine.says["GET /containers/json"] = (500, {"message": "\x1b[31m" + "x" * 100_000})
    with pytest.raises(Unavailable) as told:
        provider.observe(make_pool(engine, now))
    assert len(str(told.value)) < 500 and str(told.value).isprintable()


def test_certificates_that_are_not_there_are_said_so(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    with pytest.raises(Unavailable, match=r"ca\.pem, cert\.pem and key\.pem"):
        provider.observe(make_pool(engine, now, settings={"tls_dir": "/nowhere"}))


# -- a launch that does not work -------------------------------------------------------------------


def test_a_worker_is_asked_for_with_everything_it_needs_and_no_more(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    terms = {"devices": ["0", "1", "GPU-aa"], "gpus": 2, "runtime": "nvidia", "network": "workers", "cpus": 2, "stop_s": 300, "zone": "rack-4"}
    pool = make_pool(engine, now, gpu="L4", settings=terms)
    engine.rows = [
        {"Id": "x", "State": "running", "Labels": {docker_container.DEVICES: "1"}},
        {"Id": "y", "State": "exited", "Labels": {docker_container.DEVICES: "0"}},
    ]
    worker = ordered(pool, now)
    assert provider.launch(worker) == {"container": "c1", "host": engine.host}
    asked = engine.body("POST /containers/create")
    host = asked["HostConfig"]
    assert asked["Image"] == pool.image and asked["User"] == "10001:10001" and asked["StopTimeout"] == 300
    assert host["DeviceRequests"] == [{"Driver": "", "Count": 0, "DeviceIDs": ["0", "GPU-aa"], "Capabilities": [["gpu"]], "Options": {}}]
    assert asked["Labels"][docker_container.DEVICES] == "0,GPU-aa"
    assert (host["Runtime"], host["NetworkMode"], host["NanoCpus"]) == ("nvidia", "workers", 2_000_000_000)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert host["ReadonlyRootfs"] is True and host["CapDrop"] == ["ALL"] and host["OomScoreAdj"] == 300
    env = dict(line.split("=", 1) for line in asked["Env"])
    assert env["COMFYPLANE_URL"] == "http://plane.example" and env["COMFYPLANE_INSTANCE"] == worker.instance
    assert "COMFYUI_ARGS" not in env, "it has a GPU"
    assert engine.counted("POST /containers/c1/start") == 1


def test_without_names_the_engine_chooses_the_gpu(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    provider.launch(ordered(make_pool(engine, now, gpu="L4"), now))
    assert engine.body("POST /containers/create")["HostConfig"]["DeviceRequests"][0]["Count"] == 1


def test_a_gpu_may_be_shared_by_as_many_as_was_said(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    pool = make_pool(engine, now, gpu="L4", settings={"devices": ["0", "1"], "per_device": 2})
    taken = [{"Id": str(n), "State": "running", "Labels": {docker_container.DEVICES: d}} for n, d in enumerate(["0", "0", "1"])]
    engine.rows = taken
    provider.launch(ordered(pool, now))
    assert engine.body("POST /containers/create")["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["1"]
    engine.rows = [*taken, {"Id": "z", "State": "paused", "Labels": {docker_container.DEVICES: "1"}}]
    with pytest.raises(NoCapacity, match="0 of the 2 GPUs"):
        provider.launch(ordered(pool, now))


@pytest.mark.parametrize(
    ("status", "message", "error", "removed"),
    [
        (500, 'could not select device driver "" with capabilities: [[gpu]]', NoCapacity, 1),
        (500, "OCI runtime create failed: nvidia-container-cli: device error: 7: unknown device", NoCapacity, 1),
        (500, "mkdir /var/lib/docker/x: no space left on device", NoCapacity, 1),
        (500, "OCI runtime create failed: exec: no such file", Refused, 1),
        (404, "network workers not found", Refused, 1),
        (409, "container is marked for removal", Refused, 1),
        (400, "invalid mount config", Refused, 1),
        (500, "transport is closing", Unavailable, 0),
        (503, "busy", Unavailable, 0),
    ],
)
def test_one_that_cannot_be_started_is_told_and_taken_away(
    provider: Docker, engine: FakeEngine, now: datetime, status: int, message: str, error: type[Exception], removed: int
) -> None:
    engine.says["POST /containers/c1/start"] = (status, {"message": message})
    with pytest.raises(error):
        provider.launch(ordered(make_pool(engine, now), now))
    assert engine.counted("DELETE /containers/c1") == removed


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (404, "No such image: workers", Unavailable),  # a registry may have it: it is being fetched
        (400, "invalid reference format", Refused),
        (409, "Conflict", Unavailable),  # taken, and gone before it was looked at
        (500, "no space left on device", NoCapacity),
        (500, "who knows", Unavailable),
    ],
)
def test_one_that_cannot_be_made_is_told(provider: Docker, engine: FakeEngine, now: datetime, status: int, message: str, error: type[Exception]) -> None:
    engine.says["POST /containers/create"] = (status, {"message": message})
    with pytest.raises(error):
        provider.launch(ordered(make_pool(engine, now), now))
    assert engine.counted("POST /containers/c1/start") == 0


def test_a_launch_whose_answer_was_lost_finds_what_it_made(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    worker = ordered(make_pool(engine, now), now)
    name = docker_container.name_of(provider.installation, worker.instance)
    labels = {docker_container.INSTALLATION: provider.installation, docker_container.INSTANCE: worker.instance}
    engine.says["POST /containers/create"] = (409, {"message": "the name is in use"})
    engine.says[f"GET /containers/{name}/json"] = (200, {"Id": "c1", "Config": {"Labels": labels}})
    assert provider.launch(worker)["container"] == "c1"
    assert engine.counted("POST /containers/c1/start") == 1
    labels[docker_container.INSTANCE] = "another"
    with pytest.raises(Refused, match="not ours"):
        provider.launch(worker)


def test_settings_that_were_written_by_hand_are_refused_at_the_launch(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    pool = make_pool(engine, now, settings={"memory_mib": "lots"})
    with pytest.raises(Refused, match="memory_mib must be a whole number"):
        provider.launch(ordered(pool, now))
    assert provider.observe(pool).instances == {}, "and do not hide what runs"


# -- several machines ------------------------------------------------------------------------------


def test_workers_of_every_machine_of_a_pool_are_seen(provider: Docker, start: Callable[[], FakeEngine], now: datetime) -> None:
    one, two, old = start(), start(), start()
    pool = make_pool(one, now)
    PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1, placement={"host": two.host})
    offered = PoolOffer.objects.get(pool=pool)
    first, second = ordered(pool, now), ordered(pool, now, offer=offered, gpu="L4")
    third = ordered(pool, now, provider_ref={"container": "c1", "host": old.host})
    assert provider.launch(first)["host"] == one.host and provider.launch(second)["host"] == two.host
    one.rows, two.rows, old.rows = [row(provider, first)], [row(provider, second, "paused")], [row(provider, third)]
    found = provider.observe(pool).instances
    assert set(found) == {first.instance, second.instance, third.instance}, "also on a machine that is no longer named"
    two.says["GET /containers/json"] = (500, {"message": "broken"})
    partly = provider.observe(pool)
    assert set(partly.instances) == {first.instance, third.instance}, "the rest is known"
    assert list(partly.silent) == [two.host] and "broken" in partly.silent[two.host]
    assert partly.closed == {offered.id}
    second.provider_ref = {"container": "c1", "host": two.host}
    assert [partly.hides(worker) for worker in (first, second, third)] == [False, True, False]
    one.says["GET /containers/json"] = old.says["GET /containers/json"] = (500, {"message": "broken"})
    with pytest.raises(Unavailable):
        provider.observe(pool)


@pytest.mark.parametrize(
    "answer", [(403, {"message": "forbidden by policy"}), GONE, (409, {"message": "locked"}), (500, {"message": "no space left on device"})]
)
def test_a_machine_that_refuses_to_say_what_it_runs_hides_only_itself(provider: Docker, start: Callable[[], FakeEngine], now: datetime, answer: Answer) -> None:
    one, two = start(), start()
    pool = make_pool(one, now)
    offer = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1, placement={"host": two.host})
    here = ordered(pool, now, provider_ref={"container": "c1", "host": one.host})
    there = ordered(pool, now, offer=offer, provider_ref={"container": "c1", "host": two.host})
    one.rows = [row(provider, here)]
    two.says["GET /containers/json"] = answer
    found = provider.observe(pool)
    assert set(found.instances) == {here.instance} and answer[1]["message"] in found.silent[two.host]
    assert found.closed == {offer.id} and [found.hides(worker) for worker in (here, there)] == [False, True]
    one.says["GET /containers/json"] = answer
    with pytest.raises(Unavailable, match=answer[1]["message"]):
        provider.observe(pool)


def test_what_is_left_on_a_machine_that_no_offer_names_any_more_is_ended_for_a_day(start: Callable[[], FakeEngine], now: datetime) -> None:
    one, old, older = start(), start(), start()
    pool = make_pool(one, now)
    gone = {"state": "lost", "stop_reason": "host_silent"}
    left = ordered(pool, now, **gone, stopped_at=now, provider_ref={"container": "c1", "host": old.host})
    ordered(pool, now, **gone, stopped_at=now - timedelta(hours=2), provider_ref={"container": "c2", "host": older.host})
    ordered(pool, now, **gone, stopped_at=now, provider_ref={})
    provider = Docker(installation="0123456789abcdef", clock=lambda: now + timedelta(hours=23))
    old.rows = [row(provider, left)]
    workers.look_after(pool, provider=provider, fence=lambda: None, now=now + timedelta(hours=23))
    assert old.counted("POST /containers/c1/kill") == 1, "ended as soon as its machine is heard"
    assert one.asked and not older.asked, "a day later nobody asks any more"
    old.says["GET /containers/json"] = (500, {"message": "broken"})
    assert list(provider.observe(pool).silent) == [old.host], "that one is away is no reason to know nothing"


def test_certificates_of_before_do_not_make_a_machine_silent(provider: Docker, engine: FakeEngine, now: datetime) -> None:
    pool = make_pool(engine, now)
    worker = ordered(pool, now, provider_ref={"container": "c1", "host": engine.host, "tls_dir": "/nowhere"})
    engine.rows = [row(provider, worker)]
    found = provider.observe(pool)
    assert set(found.instances) == {worker.instance} and not found.silent and not found.hides(worker)


# -- what is seen and ended ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status", "details", "phase", "failed", "why"),
    [
        ("running", "Up 2 minutes (healthy)", None, "running", False, ""),
        ("running", "Up 2 minutes (unhealthy)", None, "running", False, "Its own health check fails."),
        ("removing", "", None, "stopping", False, ""),
        ("exited", "Exited (0) 1 second ago", {"State": {"ExitCode": 0}}, "ended", False, "It left by itself."),
        ("exited", "Exited (139) 1 second ago", {"State": {"ExitCode": 139}}, "ended", True, "It crashed (SIGSEGV) (exit code 139)."),
        ("exited", "Exited (42) 1 second ago", None, "ended", True, "It failed (exit code 42)."),
        ("dead", "Dead", None, "ended", True, "It ended, and the engine does not know how."),
        ("exited", "", {"State": {"ExitCode": 128, "Error": "no\nroom \x1b"}}, "ended", True, "It failed (exit code 128): no room."),
        ("restarting", "Restarting (3) 1 second ago", {"State": {"ExitCode": 3}, "RestartCount": 1}, "pending", False, None),
    ],
)
def test_the_state_of_a_container_in_words(
    provider: Docker, engine: FakeEngine, now: datetime, state: str, status: str, details: Any, phase: str, failed: bool, why: str | None
) -> None:
    pool = make_pool(engine, now)
    worker = ordered(pool, now)
    engine.rows = [row(provider, worker, state, Status=status)]
    engine.says["GET /containers/c1/json"] = (200, details) if details else GONE
    (found,) = provider.observe(pool).instances.values()
    assert (found.phase, found.failed) == (phase, failed)
    assert found.why == why or (why is None and "heard nothing" in found.why and "once" in found.why)


def test_stopping_what_is_gone_does_nothing(provider: Docker, engine: FakeEngine) -> None:
    ref = {"container": "c1", "host": engine.host}
    engine.says["POST /containers/c1/kill"] = GONE
    provider.stop(ref, force=True)
    provider.stop({}, force=True)
    provider.forget("x", {})
    engine.says["DELETE /containers/c1"] = (409, {"message": "removal of container c1 is already in progress"})
    provider.forget("x", ref)


def test_one_that_waits_to_be_started_again_is_stopped_for_good(provider: Docker, engine: FakeEngine) -> None:
    ref = {"container": "c1", "host": engine.host}
    engine.says["POST /containers/c1/kill"] = (409, {"message": "is not running"})
    engine.says["GET /containers/c1/json"] = (200, {"Id": "c1", "State": {"Status": "restarting"}})
    provider.stop(ref)
    assert engine.counted("POST /containers/c1/stop") == 1
    provider.stop(ref, force=True)
    assert engine.counted("DELETE /containers/c1") == 1


def test_whoever_may_not_use_a_proxy_does_not(provider: Docker, engine: FakeEngine, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(docker_engine, "CALL_S", 2)
    monkeypatch.delenv("no_proxy", raising=False)
    assert provider.observe(make_pool(engine, now)).instances == {}
