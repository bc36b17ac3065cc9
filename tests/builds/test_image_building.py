"""Builds as rows: one per lock, one builder at a time, fenced, and ended once."""

from __future__ import annotations

import hashlib
import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import factories
import pytest
from django.db import connection
from django_q.models import OrmQ

from builds import tasks
from builds.images import asking, building, running, telling
from builds.images.building import Lost
from builds.models import Build, BuildLine, BuildStep, Lock, Version, VersionLock
from controlplane.kernel.errors import Conflict, Invalid, NotFound
from controlplane.kernel.models import AuditEntry

pytestmark = pytest.mark.django_db


def make_lock(now: datetime, **document: Any) -> Lock:
    told = {"platform": {"os": "linux", "arch": "amd64"}, **document}
    return Lock.objects.create(sha256=hashlib.sha256(repr((told, uuid4())).encode()).hexdigest(), document=told, created_at=now, created_by="test")


@pytest.fixture(autouse=True)
def here(settings: Any) -> None:
    settings.BUILD = {**settings.BUILD, "PLATFORMS": ["linux/amd64"], "DOCKER_HOST": "unix:///nowhere/docker.sock", "LEASE_S": 60.0}


@pytest.fixture
def version(now: datetime) -> Version:
    return factories.make_version(factories.make_workflow(now=now), now=now)


@pytest.fixture
def build(version: Version, now: datetime) -> Build:
    return building.request(version=version, lock=make_lock(now), actor="ann", now=now)


def test_a_lock_has_one_build_while_it_waits_runs_or_went_well(build: Build, version: Version, now: datetime) -> None:
    def asked() -> Build:
        return building.request(version=version, lock=build.lock, actor="bob", now=now)

    assert asked().id == build.id
    held = building.claim(build.id, now=now)
    assert held is not None and asked().id == build.id
    building.succeed(held, now=now, image_id="sha256:1")
    assert asked().id == build.id
    building.image_lost(build, now=now)
    assert asked().id != build.id
    assert AuditEntry.objects.filter(action="build.request").count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_who_ask_at_the_same_moment_get_the_same_build(now: datetime) -> None:
    version = factories.make_version(factories.make_workflow(now=now), now=now)
    lock, line, got = make_lock(now), threading.Barrier(4), []

    def ask() -> None:
        try:
            line.wait(10)
            got.append(building.request(version=version, lock=lock, actor="x", now=now).id)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(got) == 4 and len(set(got)) == 1 and Build.objects.count() == 1


def test_a_foreign_platform_is_refused_before_docker_is_asked(version: Version, now: datetime) -> None:
    lock = make_lock(now, platform={"os": "linux", "arch": "arm64"})
    with pytest.raises(Invalid) as refused:
        building.request(version=version, lock=lock, actor="ann", now=now)
    assert refused.value.code == "platform_foreign" and not Build.objects.exists()


def test_only_one_process_holds_a_build_and_a_silent_one_is_followed(build: Build, now: datetime) -> None:
    first = building.claim(build.id, now=now)
    assert first is not None and building.claim(build.id, now=now + timedelta(seconds=59)) is None
    building.note(first, lines=[BuildLine(build=build, seq=1, at=now, text="old")], now=now)
    later = now + timedelta(seconds=61)
    assert building.waiting(now=later) == [build.id]
    second = building.claim(build.id, now=later)
    assert second is not None and second.build.attempts == 2
    assert not BuildLine.objects.filter(build=build).exists(), "what the dead one said is gone"
    for late in (
        lambda: building.renew(first, now=later),
        lambda: building.note(first, now=later),
        lambda: building.succeed(first, now=later, image_id="sha256:1"),
        lambda: building.fail(first, error={"code": "x"}, now=later),
        lambda: building.canceled(first, now=later),
    ):
        with pytest.raises(Lost):
            late()
    assert building.succeed(second, now=later, image_id="sha256:2").image_id == "sha256:2"


def test_a_build_whose_processes_keep_dying_ends(build: Build, now: datetime) -> None:
    for _ in range(building.MAX_ATTEMPTS):
        assert building.claim(build.id, now=now) is not None
        now += timedelta(seconds=61)
    assert building.claim(build.id, now=now) is None
    ended = building.find(build.id)
    assert (ended.state, ended.error["code"]) == ("failed", "builder_lost")


def test_cancel_ends_what_waits_and_asks_what_runs(build: Build, version: Version, now: datetime) -> None:
    assert building.cancel(build, actor="ann", now=now).state == "canceled"
    with pytest.raises(Conflict):
        building.cancel(build, actor="ann", now=now)
    other = building.request(version=version, lock=build.lock, actor="ann", now=now)
    held = building.claim(other.id, now=now)
    assert held is not None and building.renew(held, now=now) is False
    assert building.cancel(other, actor="ann", now=now).state == "running"
    building.cancel(other, actor="ann", now=now)
    assert building.renew(held, now=now) is True
    building.note(held, steps=[BuildStep(build=other, position=1, name="x", state="running")], now=now)
    assert building.canceled(held, now=now).state == "canceled"
    assert other.steps.get().state == "canceled"
    assert AuditEntry.objects.filter(action="build.cancel", object_id=str(other.id)).count() == 1


def test_a_canceled_build_of_a_dead_process_ends_at_once(build: Build, now: datetime) -> None:
    building.claim(build.id, now=now)
    assert building.cancel(build, actor="ann", now=now + timedelta(seconds=61)).state == "canceled"


def test_a_state_is_left_only_where_the_table_says(build: Build, now: datetime) -> None:
    held = building.claim(build.id, now=now)
    assert held is not None
    building.fail(held, error={"code": "x"}, step="y", now=now)
    for end in ("succeeded", "failed", "canceled", "running", "queued"):
        with pytest.raises(Conflict):
            building._end(building.find(build.id), end, now=now)


def test_without_an_engine_a_build_fails_in_words_and_can_be_asked_for_again(build: Build, version: Version, now: datetime) -> None:
    done = running.run(build.id, clock=lambda: now)
    assert (done.state, done.error["code"], done.failed_step) == ("failed", "docker_unavailable", "Prepare the sources")
    assert "BUILD_DOCKER_HOST" in done.error["suggestion"]
    assert [step.state for step in done.steps.all()] == ["failed"]
    assert running.run(build.id, clock=lambda: now).id == build.id, "running it again changes nothing"
    assert building.request(version=version, lock=build.lock, actor="ann", now=now).state == "queued"


def test_a_bug_of_the_builder_ends_the_build(build: Build, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("<b>boom</b>")

    monkeypatch.setattr(running, "_run", broken)
    done = running.run(build.id, clock=lambda: now)
    assert (done.state, done.error["code"]) == ("failed", "builder_error") and "boom" in done.error["message"]


def test_ctrl_c_cancels_and_is_passed_on(build: Build, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.run(build.id, clock=lambda: now)
    assert building.find(build.id).state == "canceled"


def test_a_version_without_a_lock_is_refused_with_the_way_to_one(version: Version, now: datetime) -> None:
    with pytest.raises(Conflict) as refused:
        asking.ask(version=version, actor="ann", now=now)
    assert refused.value.code == "not_locked" and "manage.py lock" in refused.value.suggestion
    lock = make_lock(now)
    VersionLock.objects.create(version=version, lock=lock, made_at=now, made_by="test")
    assert asking.ask(version=version, actor="ann", now=now).lock == lock


def test_builds_nobody_works_on_are_queued_once(build: Build, version: Version, now: datetime) -> None:
    tasks.start(build)
    assert OrmQ.objects.count() == 1
    assert tasks.take_up() == 0, "it is in the queue"
    OrmQ.objects.all().delete()
    assert tasks.take_up() == 1 and tasks.take_up() == 0
    assert OrmQ.objects.get().task["args"] == (str(build.id),)


def test_what_is_told_of_a_build(build: Build, now: datetime) -> None:
    held = building.claim(build.id, now=now)
    assert held is not None
    rows = [
        BuildStep(build=build, position=1, name="[internal] load", state="done", seconds=0.0),
        BuildStep(build=build, position=2, name="[os 1/2] FROM x", stage="os", state="done", seconds=0.0),
        BuildStep(build=build, position=3, name="[os 2/2] RUN x", stage="os", state="cached", seconds=0.0, size_bytes=5),
        BuildStep(build=build, position=4, name="[image 1/1] COPY x", stage="image", state="done", seconds=1.5),
    ]
    building.note(held, steps=rows, lines=[BuildLine(build=build, seq=n, at=now, text=str(n)) for n in (1, 2, 3)], now=now)
    building.fail(held, error={"code": "x", "message": "y", "suggestion": "z", "details": {}}, now=now + timedelta(seconds=90))
    told = telling.one(building.find(build.id))
    assert told["cache"] == {"steps": 2, "cached": 1} and told["seconds"] == 90.0 and len(told["steps"]) == 4
    assert [line["seq"] for line in telling.lines_after(build, 1)] == [2, 3]
    with pytest.raises(NotFound):
        building.find(uuid4())
