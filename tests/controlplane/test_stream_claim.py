"""The stream process as workers and customers meet it: long polls that wake, events that resume, doors that stay shut."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone
from factories import make_customer, make_key, make_pool, make_runnable, make_worker, submit

from controlplane.kernel.ids import uuid7
from fleet import membership, queue, tokens
from fleet.models import Job, Worker
from tests.controlplane.stream_server import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def base(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """One stream process for the module: it shuts its threads down for good when it ends."""
    with django_db_blocker.unblock():
        from controlplane.stream.app import _pool, app

        with serving(app) as url:
            yield url
            line = threading.Barrier(len(_pool._threads) or 1)

            def leave() -> None:
                line.wait(10)
                connection.close()

            for left in [_pool.submit(leave) for _ in range(line.parties)]:  # one for each thread, so that the database can be dropped
                left.result(15)


class Agent:
    def __init__(self, base: str) -> None:
        now = timezone.now()
        self.base, self.pool = base, make_pool(now=now)
        self.worker = make_worker(self.pool, now=now)
        self.token, digest = tokens.new_worker_token(self.worker.id)
        Worker.objects.filter(id=self.worker.id).update(token_digest=digest)
        self.workflow, self.customer = make_runnable(now=now, pool=self.pool), make_customer(now=now)

    def claim(self, body: Any, token: str | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx.post(f"{self.base}/worker/v1/claim", content=content, headers=headers, timeout=20)

    def submit(self, **fields: Any) -> Job:
        return submit(self.customer, self.workflow, now=timezone.now(), **fields)


@pytest.fixture
def agent(base: str) -> Agent:
    return Agent(base)


def meanwhile(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(call()), daemon=True)
    thread.start()
    return thread, got


def until(true: Callable[[], bool], patience_s: float = 10.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def waiting(topic: str) -> Callable[[], bool]:
    from controlplane.stream.app import waker

    return lambda: bool(waker._waiting.get(topic))


def test_a_claim_with_work_is_answered_at_once(agent: Agent) -> None:
    job = agent.submit()
    answer = agent.claim({"wait_s": 10}).json()
    assert ([j["job"] for j in answer["jobs"]], answer["drain"]) == ([str(job.id)], False)
    assert Job.objects.get(id=job.id).worker_id == agent.worker.id


def test_a_waiting_claim_wakes_for_a_new_job(agent: Agent) -> None:
    thread, got = meanwhile(lambda: agent.claim({"wait_s": 18}))
    until(waiting(f"pool:{agent.pool.id}"))
    time.sleep(0.1)  # it has looked and found nothing
    started = time.monotonic()
    job = agent.submit()
    thread.join(15)
    assert [j["job"] for j in got[0].json()["jobs"]] == [str(job.id)]
    assert time.monotonic() - started < 4.5, "it was found by looking again, not by being woken"


def test_one_job_wakes_two_and_is_given_to_one(agent: Agent) -> None:
    other = Agent.__new__(Agent)
    other.__dict__ |= agent.__dict__
    now = timezone.now()
    other.worker = make_worker(agent.pool, now=now)
    other.token, digest = tokens.new_worker_token(other.worker.id)
    Worker.objects.filter(id=other.worker.id).update(token_digest=digest)
    polls = [meanwhile(lambda a=a: a.claim({"wait_s": 2})) for a in (agent, other)]
    until(waiting(f"pool:{agent.pool.id}"))
    job = agent.submit()
    for thread, _ in polls:
        thread.join(10)
    assert [j["job"] for _, got in polls for j in got[0].json()["jobs"]] == [str(job.id)]


@pytest.mark.parametrize("wait", [0, -5, None, "soon", True, [], 1e-9, 0.05])
def test_without_work_it_answers_empty_in_time(agent: Agent, wait: Any) -> None:
    answer = agent.claim({"wait_s": wait})
    assert (answer.status_code, answer.json()) == (200, {"jobs": [], "drain": False})


def test_a_waiting_worker_is_told_to_drain(agent: Agent) -> None:
    thread, got = meanwhile(lambda: agent.claim({"wait_s": 15}))
    until(waiting(f"pool:{agent.pool.id}"))
    membership.drain(agent.worker, actor="op", now=timezone.now())
    thread.join(15)
    assert got[0].json() == {"jobs": [], "drain": True}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_body"),
        (b'{"wait_s": 1e999}', 400, "malformed_body"),
        (b"[]", 400, "malformed_body"),
        (b" " * 4_000_001, 400, "body_too_large"),
        (b'{"max_jobs": "many"}', 422, "field_invalid"),
        (b'{"max_jobs": 1' + b"0" * 400 + b"}", 422, "field_invalid"),
    ],
    ids=range(6),
)
def test_bad_bodies_get_the_envelope(agent: Agent, body: bytes, status: int, code: str) -> None:
    agent.submit()
    answer = agent.claim(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]


@pytest.mark.parametrize("wait", [10**400, 1e300], ids=["int", "float"])
def test_a_wait_past_all_measure_is_the_longest_there_is(agent: Agent, wait: Any) -> None:
    agent.submit()
    assert agent.claim({"wait_s": wait, "warm": 5}).status_code == 200


def test_tokens_are_checked_before_anything_is_read(agent: Agent) -> None:
    for token in ("x", "cpw_zz", tokens.pool_token(agent.pool)):
        refused = agent.claim(b"{", token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "worker_token_unknown")
    membership.stopped(agent.worker, reason="crash", now=timezone.now())
    assert agent.claim({}).json()["error"]["code"] == "worker_retired"


def test_who_hung_up_is_given_nothing(agent: Agent) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{agent.base}/worker/v1/claim", json={"wait_s": 15}, headers={"Authorization": f"Bearer {agent.token}"}, timeout=0.3)
    until(waiting(f"pool:{agent.pool.id}"))
    job = agent.submit()
    until(lambda: not waiting(f"pool:{agent.pool.id}")())
    assert Job.objects.get(id=job.id).status == "queued"


# Events


def events(base: str, job_id: object, secret: str, *, last: str = "", most: int = 100) -> Iterator[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {secret}"} | ({"Last-Event-ID": last} if last else {})
    with httpx.stream("GET", f"{base}/v1/jobs/{job_id}/events", headers=headers, timeout=15) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in response.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                yield event | {"data": json.loads(event["data"])}
                event = {}


def test_a_job_is_followed_to_its_end(agent: Agent) -> None:
    _, secret = make_key(agent.customer, now=timezone.now())
    job = agent.submit()
    seen = events(agent.base, job.id, secret)
    first = next(seen)
    assert (first["event"], first["id"], first["data"]["status"], first["data"]["position"]) == ("queued", "1", "queued", 0)
    queue.claim(agent.worker, now=timezone.now())
    assert next(seen)["event"] == "running"
    queue.heartbeat(agent.worker, state="busy", reports=[queue.Report(job.id, 1, 0.5, "2")], now=timezone.now())
    running = next(seen)
    assert (running["event"], running["data"]["progress"]) == ("running", 0.5)
    queue.complete(agent.worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome="succeeded"), now=timezone.now())
    rest = list(seen)
    assert [event["event"] for event in rest] == ["succeeded"], "the stream ends with the job"
    assert int(rest[-1]["id"]) == Job.objects.get(id=job.id).revision


def test_who_comes_back_misses_nothing_and_hears_nothing_twice(agent: Agent) -> None:
    _, secret = make_key(agent.customer, now=timezone.now())
    job = agent.submit()
    known = next(events(agent.base, job.id, secret))["id"]
    queue.claim(agent.worker, now=timezone.now())
    (news,) = [next(events(agent.base, job.id, secret, last=known))]
    assert (news["event"], int(news["id"])) == ("running", int(known) + 1)
    thread, got = meanwhile(lambda: next(events(agent.base, job.id, secret, last=news["id"])))
    until(waiting(f"job:{job.id}"))
    time.sleep(0.1)
    assert not got, "an event it has seen was sent again"
    queue.heartbeat(agent.worker, state="busy", reports=[queue.Report(job.id, 1, 0.25, "1")], now=timezone.now())
    thread.join(10)
    assert got[0]["data"]["progress"] == 0.25


@pytest.mark.parametrize("last", ["999", "abc", "-1", "1e9", "9" * 40])
def test_the_end_is_told_whatever_was_heard_before(agent: Agent, last: str) -> None:
    _, secret = make_key(agent.customer, now=timezone.now())
    job = agent.submit()
    queue.cancel(job_id=job.id, now=timezone.now())
    assert [e["event"] for e in events(agent.base, job.id, secret, last=last)] == ["canceled"]


def test_somebody_elses_job_is_no_job(agent: Agent) -> None:
    job = agent.submit()
    now = timezone.now()
    _, foreign = make_key(make_customer(now=now), now=now)
    _, blind = make_key(agent.customer, now=now, scopes=["jobs:write"])

    def ask(job_id: object, secret: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        answer = httpx.get(f"{agent.base}/v1/jobs/{job_id}/events", headers=headers, timeout=10)
        return answer.status_code, answer.json()["error"]["code"]

    assert ask(job.id, foreign) == ask(uuid7(), foreign) == ask("nonsense", foreign) == ask("%00", foreign) == (404, "job_not_found")
    assert ask(job.id, blind) == (403, "scope_missing")
    assert ask(job.id, "cp_wrong") == (401, "key_unknown")
    assert ask(job.id, "") == (401, "key_missing")


def test_one_customer_cannot_take_every_place_at_the_streams(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["controlplane.stream.app"], "MOST_STREAMS", 1)
    job = agent.submit()
    headers = {"Authorization": f"Bearer {make_key(agent.customer, now=timezone.now())[1]}"}
    url = f"{agent.base}/v1/jobs/{job.id}/events"

    def status() -> int:
        with httpx.stream("GET", url, headers=headers, timeout=10) as answer:
            return answer.status_code

    with httpx.stream("GET", url, headers=headers, timeout=10) as first:
        heard = first.iter_text()
        while "event:" not in next(heard):
            pass
        refused = httpx.get(url, headers=headers, timeout=10)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"]
    until(lambda: status() == 200)


def test_the_process_says_that_it_is_alive(base: str) -> None:
    assert httpx.get(f"{base}/stream/healthz").json() == {"status": "ok"}
