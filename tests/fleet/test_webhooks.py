from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import pytest
from django.db import connections
from standardwebhooks import Webhook

from controlplane.kernel import loops, outbound, outbox, signing
from controlplane.kernel.loops import Tick
from controlplane.kernel.models import OutboxEntry
from fleet import queue, webhooks
from tests import factories

pytestmark = pytest.mark.django_db
ADA = UUID(int=7)


class Receiver:
    """A real HTTP server on loopback that answers by plan and remembers what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.before: Callable[[], None] = lambda: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((dict(self.headers), body))
                outer.before()
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *args) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    settings.WEBHOOK_TIMEOUT_S = 5.0
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def put(url: str, now: datetime, key: str = "a", **changed) -> None:
    outbox.put(topic="webhook", key=key, payload={"url": url, "customer": str(ADA), "epoch": 2, "body": {"type": "test", "n": "ü"}} | changed, now=now)


def tick(now: datetime) -> str:
    return webhooks.step(Tick(now, 1, "webhooks"))


def entry() -> OutboxEntry:
    return OutboxEntry.objects.get()


def test_a_message_arrives_signed_over_its_exact_bytes(receiver) -> None:
    now = datetime.now(UTC)  # the public library compares with the real clock
    put(receiver.url, now)
    assert tick(now) == "1 done" and tick(now) == "nothing due"
    ((headers, body),) = receiver.got
    for epoch in (1, 2):
        assert Webhook(signing.derive(ADA, epoch)).verify(body, headers) == {"type": "test", "n": "ü"}
    assert headers["webhook-id"] == str(entry().id) and headers["Content-Type"] == "application/json"
    assert entry().state == "done"


def test_a_message_that_did_not_arrive_is_sent_again_with_the_same_id_and_bytes(receiver, now) -> None:
    receiver.answers = [500, 200]
    put(receiver.url, now)
    assert tick(now) == "1 retry"
    assert entry().last_error == "HTTP 500: said" and 4 <= (entry().due_at - now).total_seconds() <= 8
    assert tick(now + timedelta(seconds=3)) == "nothing due"
    assert tick(now + timedelta(seconds=9)) == "1 done"
    (first, body), (second, again) = receiver.got
    assert first["webhook-id"] == second["webhook-id"] and body == again
    assert first["webhook-timestamp"] != second["webhook-timestamp"]


def test_gone_ends_it(receiver, now) -> None:
    receiver.answers = [410]
    put(receiver.url, now)
    assert tick(now) == "1 dead" and (entry().state, entry().last_error) == ("dead", "HTTP 410: said")


def test_the_last_retry_ends_it(receiver, now) -> None:
    put(receiver.url, now)
    OutboxEntry.objects.update(attempts=9)
    receiver.answers = [500]
    assert tick(now) == "1 dead" and entry().attempts == 10


def test_a_receiver_may_ask_to_be_left_alone(receiver, now) -> None:
    receiver.answers, receiver.headers = [429], {"Retry-After": "120"}
    put(receiver.url, now)
    tick(now)
    assert 119 <= (entry().due_at - now).total_seconds() <= 125


def test_an_address_inside_is_refused_without_a_connection_and_not_tried_again(receiver, settings, now) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = []
    put(receiver.url, now)
    assert tick(now) == "1 dead" and "private" in entry().last_error and receiver.got == []


def test_nobody_listening_is_tried_again(receiver, now) -> None:
    put("http://127.0.0.1:9/", now)
    assert tick(now) == "1 retry" and "Connect" in entry().last_error


@pytest.mark.parametrize("payload", [{}, {"url": "u"}, {"url": "u", "job": "nonsense"}, {"job": str(ADA), "url": "u", "type": "t"}])
def test_an_entry_that_makes_no_sense_ends_and_holds_nobody_up(receiver, now, payload: dict) -> None:
    outbox.put(topic="webhook", key="bad", payload=payload, now=now)
    put(receiver.url, now + timedelta(milliseconds=1))
    assert tick(now + timedelta(seconds=1)) == "1 done, 1 dead"
    assert "could not be made" in OutboxEntry.objects.get(key="bad").last_error


def test_deliver_sends_one_claimed_entry(receiver, now) -> None:
    put(receiver.url, now)
    (claimed,) = outbox.claim(topic="webhook", limit=1, now=now, hold_s=60)
    assert webhooks.deliver(claimed, now) == "done" and len(receiver.got) == 1


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_receivers_think_and_slow_ones_are_waited_for_together(receiver, now) -> None:
    mine, open_ones, all_here = connections["default"], [], threading.Barrier(8, timeout=10)
    receiver.before = lambda: (open_ones.append(mine.in_atomic_block), all_here.wait())
    for n in range(8):
        put(receiver.url, now, key=str(n))
    assert tick(now) == "8 done" and open_ones == [False] * 8


def test_a_backlog_is_worked_off_in_one_tick(receiver, now) -> None:
    for n in range(30):
        put(receiver.url, now, key=str(n))
    assert tick(now) == "30 done" and len({headers["webhook-id"] for headers, _ in receiver.got}) == 30


def test_a_receiver_that_does_not_answer_does_not_hold_up_the_others(receiver, now, monkeypatch) -> None:
    tried = []

    def post(url: str, **rest):
        tried.append(url)
        if "silent" in url:
            raise outbound.Failed("no answer within 10 s")
        return real(url, **rest)

    real = outbound.post
    monkeypatch.setattr(outbound, "post", post)
    for n in range(40):
        put("https://silent.example/hook", now, key=f"a{n:02}")
    put(receiver.url, now + timedelta(milliseconds=1), key="b")
    assert tick(now + timedelta(seconds=1)) == "1 done, 40 retry"
    assert tried.count("https://silent.example/hook") == 8 and receiver.url in tried
    assert OutboxEntry.objects.get(key="a39").last_error.startswith("not sent")


def test_a_long_backlog_keeps_the_lead_and_stops_when_it_is_lost(receiver, now) -> None:
    loop = loops.Loop("webhooks", 0.5, webhooks.step, lease_s=0.0001)
    lead = loops.take(loop, holder="a", now=now)
    for n in range(20):
        put(receiver.url, now, key=str(n))
    with pytest.raises(loops.LostLead):
        webhooks.step(Tick(now, lead.epoch - 1, "webhooks", lease_s=0.0001))
    assert outbox.counts()["webhook"]["done"] < 20
    assert webhooks.step(Tick(now, lead.epoch, "webhooks", lease_s=0.0001)).endswith("done")


def test_a_customer_is_told_that_a_job_ended(receiver, now) -> None:
    customer, workflow = factories.make_customer(now=now), factories.make_runnable(now=now)
    job = factories.submit(customer, workflow, now=now, webhook_url=receiver.url, metadata={"order": 7})
    assert tick(now) == "nothing due"
    queue.cancel(job_id=job.id, now=now + timedelta(seconds=1))
    assert tick(now + timedelta(seconds=2)) == "1 done"
    ((headers, body),) = receiver.got
    told = json.loads(body)
    assert (told["type"], told["timestamp"]) == ("job.canceled", "2026-03-02T12:00:01.000Z")
    assert (told["data"]["id"], told["data"]["status"], told["data"]["metadata"]) == (str(job.id), "canceled", {"order": 7})
    assert signing.verify(secrets=[signing.derive(customer.id, 1)], headers=headers, body=body, now=now)
