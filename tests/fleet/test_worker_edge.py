"""The worker's edge: whose token opens what, and bodies no agent should send. None of it may end in a server error."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from factories import INPUTS, make_customer, make_pool, make_runnable, make_version, make_worker, make_workflow, submit
from racing import race

from builds.models import Version
from controlplane.kernel import blobs
from fleet import estimates, input_files, presenting, queue, tokens
from fleet.models import Attempt, Job, Output, Pool, Worker

pytestmark = pytest.mark.django_db
ROOT = "/worker/v1"


class Agent:
    """A worker with a token, and HTTP as it speaks it."""

    def __init__(self, pool: Pool, now: datetime, **fields: Any) -> None:
        self.worker = make_worker(pool, now=now, **fields)
        self.token, digest = tokens.new_worker_token(self.worker.id)
        Worker.objects.filter(id=self.worker.id).update(token_digest=digest)
        self.client = Client(raise_request_exception=False)

    def post(self, path: str, body: Any = None, token: str | None = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return self.client.post(f"{ROOT}{path}", data, content_type="application/json", headers={"Authorization": f"Bearer {token or self.token}"})

    def get(self, path: str) -> Any:
        return self.client.get(f"{ROOT}{path}", headers={"Authorization": f"Bearer {self.token}"})

    def put(self, path: str, data: bytes = b"bytes", **headers: str) -> Any:
        named = {"Authorization": f"Bearer {self.token}", "X-Output-Kind": "file"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.put(f"{ROOT}{path}", data, content_type=named.pop("Content-Type", "text/plain"), headers=named)


@pytest.fixture
def at() -> datetime:
    return timezone.now()


@pytest.fixture
def pool(at: datetime) -> Pool:
    return make_pool(now=at)


@pytest.fixture
def agent(pool: Pool, at: datetime) -> Agent:
    return Agent(pool, at)


@pytest.fixture
def job(pool: Pool, at: datetime) -> Job:
    return submit(make_customer(now=at), make_runnable(now=at, pool=pool), now=at)


@pytest.fixture
def held(agent: Agent, job: Job) -> str:
    """The address of an attempt the agent holds."""
    (given,) = agent.post("/claim").json()["jobs"]
    assert given["job"] == str(job.id)
    return f"/jobs/{job.id}/attempts/{given['attempt']}"


def code(response: Any) -> str:
    said = response.json()["error"]
    assert said["code"] and said["message"] and said["suggestion"], said
    return str(said["code"])


# Tokens


def test_a_pool_token_opens_its_own_pool_until_it_is_rotated(pool: Pool, at: datetime, agent: Agent) -> None:
    token = tokens.pool_token(pool)
    body = {"protocol": 1, "instance": "i-1", "name": "w"}
    assert agent.post("/register", body, token).status_code == 201
    assert Worker.objects.get(instance="i-1").pool == pool
    other = make_pool(now=at)
    swapped = f"cpp_{other.pk}_{token.rpartition('_')[2]}"
    Pool.objects.filter(id=pool.id).update(token_epoch=2)
    for bad in (token, swapped, "cpp_", "cpp_1", "cpp_x_y", f"cpp_{'9' * 30}_x", "cpp_٣_x", agent.token, "é"):
        refused = agent.post("/register", body, bad)
        assert (refused.status_code, code(refused)) == (401, "pool_token_unknown"), bad


def test_a_worker_token_is_not_a_pool_token_nor_another_workers(pool: Pool, at: datetime, agent: Agent) -> None:
    other = Agent(pool, at)
    mixed = f"cpw_{other.worker.id.hex}_{agent.token.rpartition('_')[2]}"
    for bad in (mixed, tokens.pool_token(pool), "cpw_", f"cpw_{agent.worker.id.hex}_", "cpw_zz_x", "x"):
        refused = agent.post("/claim", {}, bad)
        assert (refused.status_code, code(refused)) == (401, "worker_token_unknown"), bad


@pytest.mark.parametrize("state", ["stopped", "lost"])
def test_a_retired_worker_is_told_to_leave_whatever_it_asks(pool: Pool, at: datetime, agent: Agent, held: str, state: str) -> None:
    Worker.objects.filter(id=agent.worker.id).update(state=state)
    for response in (agent.post("/claim"), agent.post("/heartbeat"), agent.post("/leave"), agent.post(f"{held}/complete"), agent.put(f"{held}/outputs/0")):
        assert (response.status_code, code(response)) == (401, "worker_retired")
    assert not Output.objects.exists()


def test_registering_again_replaces_the_token(pool: Pool, agent: Agent) -> None:
    body = {"protocol": 1, "instance": "i-1"}
    first, second = (agent.post("/register", body, tokens.pool_token(pool)).json() for _ in range(2))
    assert first["worker"] == second["worker"]
    assert agent.post("/claim", {}, first["token"]).status_code == 401
    assert agent.post("/claim", {}, second["token"]).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_one_instance_registering_many_times_at_once_is_one_worker(pool: Pool, agent: Agent) -> None:
    token = tokens.pool_token(pool)
    results = race(6, lambda _: agent.__class__.post(agent, "/register", {"protocol": 1, "instance": "same"}, token).status_code)
    assert results == [201] * 6
    assert Worker.objects.filter(instance="same").count() == 1


def test_an_instance_belongs_to_one_pool_and_is_not_reborn(pool: Pool, at: datetime, agent: Agent) -> None:
    taken = agent.post("/register", {"protocol": 1, "instance": agent.worker.instance}, tokens.pool_token(make_pool(now=at)))
    assert (taken.status_code, code(taken)) == (422, "instance_taken")
    Worker.objects.filter(id=agent.worker.id).update(state="stopped")
    dead = agent.post("/register", {"protocol": 1, "instance": agent.worker.instance}, tokens.pool_token(pool))
    assert code(dead) == "instance_retired"
    assert code(agent.post("/register", {"protocol": 2, "instance": "x"}, tokens.pool_token(pool))) == "protocol_unknown"
    assert code(agent.post("/register", {"protocol": 1, "instance": "\x00"}, tokens.pool_token(pool))) == "instance_missing"


# Bodies


BAD_JSON = [
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": -Infinity}',
    b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
]


@pytest.mark.parametrize("raw", [*BAD_JSON, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", b'{"a": ' + b"9" * 10_000 + b"}", b" " * 4_000_001], ids=range(13))
@pytest.mark.parametrize("path", ["/claim", "/heartbeat", "/leave", "COMPLETE"])
def test_unreadable_bodies_are_refused_and_change_nothing(agent: Agent, held: str, path: str, raw: bytes) -> None:
    response = agent.post(f"{held}/complete" if path == "COMPLETE" else path, raw)
    assert response.status_code == 400, response.content
    assert code(response) in ("malformed_body", "body_too_large", "body_too_deep")
    assert Job.objects.get().status == "running"


ODD: list[Any] = [None, True, -1, 2**15, 10**400, 1.5, "x", "\x00", "\ud800", [], [[]], [5], {}, {"a": {"b": ["\x00\udfff"]}}, "é" * 20_000]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_odd_values_in_any_field_never_break_the_edge(agent: Agent, pool: Pool, held: str, job: Job, value: Any) -> None:
    report = {"job": str(job.id), "attempt": 1}
    bodies: list[tuple[str, dict[str, Any]]] = [
        *(("/claim", {field: value}) for field in ("max_jobs", "wait_s", "warm")),
        *(("/heartbeat", {field: value}) for field in ("state", "jobs", "usage")),
        *(("/heartbeat", {"state": "busy", "jobs": [report | {field: value}]}) for field in ("job", "attempt", "progress", "node")),
        ("/heartbeat", {"usage": {"ram": value}}),
        *((f"{held}/complete", {"outcome": "succeeded", field: value}) for field in ("outputs",) if not isinstance(value, list | dict)),
        *((f"{held}/complete", {"outcome": value, field: value}) for field in ("error", "timings", "nodes")),
        *(
            (f"{held}/complete", {"outcome": "succeeded", "outputs": [{"index": 0, "sha256": "x", field: value}]})
            for field in ("index", "sha256", "measurements")
        ),
    ]
    for path, body in bodies:
        response = agent.post(path, body)
        assert response.status_code < 500, (path, body, response.content[:300])
    for field in ("protocol", "instance", "name", "fingerprint"):
        body = {"protocol": 1, "instance": "i-9", field: value}
        assert agent.post("/register", body, tokens.pool_token(pool)).status_code < 500, (field, value)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_an_attempts_end_is_kept_whatever_its_error_and_figures_hold(agent: Agent, held: str, job: Job, value: Any) -> None:
    estimates.forget()
    error = {"code": value, "message": value, "suggestion": value, "details": value, "class": "workflow"}
    nodes = [{"node": value, "class_type": value, "start_s": value, "run_s": value, "cached": value}, value]
    response = agent.post(f"{held}/complete", {"outcome": "failed", "error": error, "timings": {"busy_s": value, "run_s": value}, "nodes": nodes})
    assert response.status_code == 200, response.content
    job.refresh_from_db()
    assert job.status == "failed"
    shown = presenting.error(job)
    assert shown is not None and isinstance(shown["message"], str) and isinstance(shown["details"], dict)
    assert len(json.dumps(job.error)) < 40_000
    for node in Attempt.objects.get(job=job).nodes:
        assert isinstance(node["run_s"], float) and isinstance(node["node"], str)
    Attempt.objects.update(state="succeeded")
    assert estimates.of_version(job.version_id, now=timezone.now()).p50_s > 0, "figures of one attempt keep everybody else out"


def test_measurements_of_every_kind_are_kept(agent: Agent, held: str) -> None:
    data = b"words"
    sha256 = hashlib.sha256(data).hexdigest()
    assert agent.put(f"{held}/outputs/0", data).status_code == 201
    measured = {"phash": "\x00\ud83d", "has_nan": None, "sharpness": 12.5, "width": 10**400, "height": 7, "deep": {"a": [1, 2]}}
    body = {"outcome": "succeeded", "outputs": [{"index": 0, "sha256": sha256, "measurements": measured}]}
    assert agent.post(f"{held}/complete", body).status_code == 200
    output = Output.objects.get()
    assert (output.width, output.height, output.measurements["sharpness"]) == (None, 7, 12.5)


# Claims


def test_a_job_that_cannot_be_prepared_takes_no_other_with_it(agent: Agent, pool: Pool, at: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    customer, workflow = make_customer(now=at), make_runnable(now=at, pool=pool)
    bad = submit(customer, workflow, now=at, inputs={"width": 13})
    good = submit(customer, workflow, now=at)
    whole = input_files.resolve

    def resolve(version: Version, values: dict[str, Any]) -> Any:
        if values["width"] == 13:
            raise RuntimeError("its default file is gone")
        return whole(version, values)

    monkeypatch.setattr(input_files, "resolve", resolve)
    got = [job["job"] for _ in range(5) for job in agent.post("/claim", {"max_jobs": 4}).json()["jobs"]]
    assert got == [str(good.id)]
    bad.refresh_from_db()
    assert (bad.status, bad.failure_class, bad.price_microusd, bad.error["code"]) == ("failed", "platform", 0, "assignment_failed")


def test_a_claim_of_a_draining_worker_says_drain(agent: Agent, job: Job, at: datetime) -> None:
    Worker.objects.filter(id=agent.worker.id).update(drain_asked_at=at, state="draining")
    assert agent.post("/claim").json() == {"jobs": [], "drain": True}


# Files


@pytest.fixture
def filed(agent: Agent, pool: Pool, at: datetime) -> tuple[str, str]:
    """An attempt whose job has one input file, and that file's hash."""
    customer = make_customer(now=at)
    workflow = make_workflow(now=at, pool=pool)
    exposed = [{"name": "note", "node": "1", "input": "text", "type": "string", "title": "Note", "kind": "file", "required": True}]
    make_version(workflow, now=at, inputs=[*INPUTS, *exposed])
    file, _ = input_files.keep(io.BytesIO(b"a note"), name="n.txt", customer=customer, now=at)
    submit(customer, workflow, now=at, inputs={"note": str(file.id)})
    (given,) = agent.post("/claim").json()["jobs"]
    return f"/jobs/{given['job']}/attempts/{given['attempt']}", file.blob_id


def test_only_the_jobs_own_files_are_given_out(agent: Agent, pool: Pool, at: datetime, filed: tuple[str, str]) -> None:
    address, sha256 = filed
    response = agent.get(f"{address}/files/{sha256}")
    assert (response.status_code, b"".join(response.streaming_content)) == (200, b"a note")
    secret = blobs.put(io.BytesIO(b"somebody else's"), media_type="text/plain", max_bytes=99, now=at)
    for wrong in (secret.sha256, "0" * 64, "..", sha256.upper(), "%2e%2e%2fsecret"):
        refused = agent.get(f"{address}/files/{wrong}")
        assert (refused.status_code, refused.json()["error"]["code"]) in ((404, "file_not_found"), (404, "not_found")), wrong


def test_files_end_with_the_attempt(agent: Agent, pool: Pool, at: datetime, filed: tuple[str, str]) -> None:
    address, sha256 = filed
    stranger = Agent(pool, at)
    assert code(stranger.get(f"{address}/files/{sha256}")) == "attempt_stale"
    assert code(agent.get(f"{address[:-1]}2/files/{sha256}")) == "attempt_stale"
    assert code(agent.get(f"{address[:-1]}{10**30}/files/{sha256}")) == "attempt_stale"
    queue.expire_leases(now=timezone.now() + timedelta(minutes=5))
    assert code(agent.get(f"{address}/files/{sha256}")) == "attempt_stale"


# Outputs


def test_a_stale_attempt_stores_no_output(agent: Agent, pool: Pool, at: datetime, held: str) -> None:
    for wrong, by in ((held, Agent(pool, at)), (f"{held[:-1]}2", agent), (f"{held[:-1]}{2**40}", agent)):
        refused = by.put(f"{wrong}/outputs/0")
        assert (refused.status_code, code(refused)) == (409, "attempt_stale")
    queue.expire_leases(now=timezone.now() + timedelta(minutes=5))
    assert code(agent.put(f"{held}/outputs/0")) == "attempt_stale"
    assert not Output.objects.exists()


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"X_Output_Kind": "virus"}, 422, "output_kind_unknown"),
        ({"X_Content_SHA256": "0" * 64}, 422, "hash_mismatch"),
        ({"X_Content_SHA256": "zz"}, 422, "hash_mismatch"),
        ({"X_Output_Node": "\x00" + "9" * 500, "X_Output_Name": "%00%ff%2e%2e%2fetc%2fpasswd"}, 201, ""),
        ({"X_Output_Name": "%ED%A0%80" + "x" * 5000 + ".png", "Content_Type": "x/" + "y" * 500}, 201, ""),
    ],
)
def test_output_headers_are_checked_or_cleaned(agent: Agent, held: str, headers: dict[str, str], status: int, reason: str) -> None:
    response = agent.put(f"{held}/outputs/3", **headers)
    assert response.status_code == status, response.content
    if reason:
        assert code(response) == reason and not Output.objects.exists()
    else:
        name = Output.objects.get().name
        assert "/" not in name and "\x00" not in name and len(name) <= 120


@pytest.mark.parametrize("index", [1000, 2**31, 10**30])
def test_an_output_index_out_of_range_is_refused(agent: Agent, held: str, index: int) -> None:
    assert code(agent.put(f"{held}/outputs/{index}")) == "output_index_out_of_range"


def test_other_methods_are_refused_with_the_one_that_works(agent: Agent, held: str) -> None:
    for path, allowed in (("/claim", "POST"), (f"{held}/outputs/0", "PUT")):
        response = agent.get(path)
        assert (response.status_code, response["Allow"], code(response)) == (405, allowed, "method_not_allowed")
