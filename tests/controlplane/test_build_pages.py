"""Builds as operators meet them: the list, a page each, the API for scripts, and the live log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import factories
import httpx
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ

from builds.images import building
from builds.models import Build, BuildLine, BuildStep, Lock, Version, VersionLock
from controlplane.kernel import blobs
from controlplane.kernel.errors import WorkflowError
from tests.controlplane.stream_server import serving
from tests.staff import login, signed_in

EVIL = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def here(settings: Any) -> None:
    settings.BUILD = {**settings.BUILD, "PLATFORMS": ["linux/amd64"], "DOCKER_HOST": "unix:///nowhere/docker.sock"}


@pytest.fixture
def version(transactional_db: None, now: datetime) -> Version:
    made = factories.make_version(factories.make_workflow(now=now, slug="lights"), now=now)
    lock = Lock.objects.create(sha256="a" * 64, document={"platform": {"os": "linux", "arch": "amd64"}}, created_at=now, created_by="t")
    VersionLock.objects.create(version=made, lock=lock, made_at=now, made_by="t")
    return made


def running_build(version: Version, now: datetime) -> tuple[Build, building.Claim]:
    build = building.request(version=version, lock=version.locks.get().lock, actor="ann", now=now)
    held = building.claim(build.id, now=now)
    assert held is not None
    steps = [
        BuildStep(build=build, position=1, name="[os 2/2] RUN groupadd", stage="os", state="cached", seconds=0.0, size_bytes=4000),
        BuildStep(build=build, position=2, name=f"[pack-1 3/3] RUN {EVIL}", stage="pack-1", state="running"),
    ]
    building.note(held, steps=steps, lines=[BuildLine(build=build, seq=1, step=2, at=now, text=EVIL)], now=now)
    return build, held


def failed_build(version: Version, now: datetime) -> Build:
    build, held = running_build(version, now)
    error = {"code": "pack_install_failed", "message": "A pack's install.py failed.", "suggestion": "Read.", "details": {"tail": ["last line", EVIL]}}
    return building.fail(held, error=error, step=f"[pack-1 3/3] RUN {EVIL}", now=now + timedelta(seconds=90))


def test_asking_needs_the_release_role_and_starts_the_build_once(version: Version) -> None:
    address = "/ops/workflows/lights/builds/"
    assert signed_in("viewer").post(address, {"version": "1"}).status_code == 403
    assert not Build.objects.exists()
    release = signed_in("release")
    first = release.post(address, {"version": "1"})
    assert first.status_code == 302 and first["Location"] == f"/ops/builds/{Build.objects.get().id}/"
    release.post(address, {"version": "1"})
    assert Build.objects.count() == 1 and OrmQ.objects.count() == 1
    gone = release.post(address, {"version": "99"}, follow=True)
    assert "That version does not exist" in gone.content.decode()


def test_a_version_without_a_lock_is_told_the_way_to_one(version: Version) -> None:
    VersionLock.objects.all().delete()
    release = signed_in("release")
    assert "has no lock yet" in release.get("/ops/workflows/lights/builds/").content.decode()
    said = release.post("/ops/workflows/lights/builds/", {"version": "1"}, follow=True).content.decode()
    assert "manage.py lock lights@1" in said and not Build.objects.exists()


def test_the_page_of_a_failed_build_begins_with_the_step_and_its_last_lines(version: Version, now: datetime) -> None:
    build = failed_build(version, now)
    page = signed_in("viewer").get(f"/ops/builds/{build.id}/").content.decode()
    assert EVIL not in page and "&lt;script&gt;" in page
    assert "The build of lights v1 failed" in page and "pack_install_failed" in page
    assert page.index("last line") < page.index("Image layers") < page.index("build-log")
    assert "1m 30s" in page and "cached" in page and "Build again" in page
    listed = signed_in("operator").get("/ops/workflows/lights/builds/").content.decode()
    assert "1 of 2" in listed and "by ann" in listed


def test_the_page_of_a_good_build_says_where_the_image_is_and_what_is_known_of_it(version: Version, now: datetime) -> None:
    _, held = running_build(version, now)
    import io

    kept = blobs.put(io.BytesIO(b'{"bomFormat": "CycloneDX"}'), media_type="application/json", max_bytes=100, now=now)
    build = building.succeed(
        held,
        now=now,
        image="reg/worker:aaaa",
        image_id="sha256:" + "b" * 64,
        digest="sha256:" + "c" * 64,
        size_bytes=123_000_000,
        classes={"wanted": 7, "found": 100, "missing": []},
        sbom_sha256=kept.sha256,
        dockerfile="FROM x\n",
        notes=[f"left out {EVIL}"],
        vulnerabilities={"scanner": None, "reason": "No advisory database is configured, so nothing was looked up."},
    )
    client = signed_in("viewer")
    page = client.get(f"/ops/builds/{build.id}/").content.decode()
    assert "sha256:" + "c" * 64 in page and "not known" in page and "nothing was looked up" in page and EVIL not in page
    assert client.get(f"/ops/builds/{build.id}/Dockerfile").content == b"FROM x\n"
    assert b"".join(client.get(f"/ops/builds/{build.id}/sbom.json").streaming_content) == b'{"bomFormat": "CycloneDX"}'
    log = client.get(f"/ops/builds/{build.id}/log.txt")
    assert log["Content-Type"].startswith("text/plain") and EVIL.encode() in b"".join(log.streaming_content)
    Build.objects.filter(id=build.id).update(vulnerabilities={"scanner": "osv-file", "records": 5, "packages": 3, "found": [], "not_covered": ["ComfyUI"]})
    assert "None of the advisories" in client.get(f"/ops/builds/{build.id}/").content.decode()


def test_a_running_build_is_canceled_by_who_may(version: Version) -> None:
    build, _ = running_build(version, timezone.now())
    assert signed_in("viewer").post(f"/ops/builds/{build.id}/cancel/").status_code == 403
    release = signed_in("release")
    assert "Cancel build" in release.get(f"/ops/builds/{build.id}/").content.decode()
    release.post(f"/ops/builds/{build.id}/cancel/")
    assert building.find(build.id).cancel_asked_at is not None
    assert "Cancel asked" in release.get(f"/ops/builds/{build.id}/").content.decode()


def test_unknown_builds_are_not_found(version: Version) -> None:
    client = signed_in("viewer")
    for path in ("", "lines.json", "log.txt", "Dockerfile", "sbom.json"):
        assert client.get(f"/ops/builds/{factories.some_id()}/{path}").status_code == 404
    assert Client().get(f"/ops/builds/{factories.some_id()}/").status_code == 302


def test_scripts_ask_look_read_and_cancel(version: Version, now: datetime) -> None:
    client, release = Client(), login("release")
    asked = client.post("/ops/api/workflows/lights/builds", {"version": 1}, content_type="application/json", headers=release)
    assert asked.status_code == 202 and asked.json()["state"] == "queued"
    address = f"/ops/api/builds/{asked.json()['id']}"
    assert client.post("/ops/api/workflows/lights/builds", content_type="application/json", headers=release).status_code == 200
    held = building.claim(asked.json()["id"], now=now)
    assert held is not None
    building.note(held, lines=[BuildLine(build=held.build, seq=n, at=now, text=f"line {n}") for n in range(1, 4)], now=now)
    told = client.get(f"{address}/log", {"after": "1"}, headers=release).json()
    assert [line["text"] for line in told["lines"]] == ["line 2", "line 3"] and told["next"] == 3 and told["open"] is True
    assert client.get(f"{address}/log", {"after": "x" * 50}, headers=release).json()["next"] == 3
    assert client.post(f"{address}/cancel", headers=release).json()["cancel_asked"] is True
    assert client.get("/ops/api/workflows/lights/builds", headers=release).json()["results"][0]["id"] == asked.json()["id"]
    for body in ('{"version": true}', '{"version": [1]}', '{"other": 1}', "[]", "{"):
        assert client.post("/ops/api/workflows/lights/builds", body, content_type="application/json", headers=release).status_code in (400, 422)
    assert client.get("/ops/api/workflows/nothing/builds", headers=release).status_code == 404
    viewer = login("viewer")
    assert client.post("/ops/api/workflows/lights/builds", content_type="application/json", headers=viewer).status_code == 403
    assert client.get(address).status_code == 401


def test_the_command_lists_builds_and_refuses_in_json(version: Version, now: datetime, capsys: pytest.CaptureFixture[str]) -> None:
    failed_build(version, now)
    call_command("builds", "--json")
    assert json.loads(capsys.readouterr().out)["builds"][0]["error"]["code"] == "pack_install_failed"
    call_command("builds", "lights", "--state", "failed")
    assert "pack_install_failed" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        call_command("build", "nothing")
    assert ended.value.code == 2 and json.loads(capsys.readouterr().out)["error"]["code"] == "unknown_workflow"
    with pytest.raises(SystemExit) as ended:
        call_command("build", "lights", "--json")
    assert ended.value.code == 1 and json.loads(capsys.readouterr().out)["error"]["code"] == "docker_unavailable"


# -- the stream --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stream(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """The route alone, with threads of its own."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from starlette.applications import Starlette

    from controlplane.stream import build_events
    from controlplane.stream.app import refused

    with django_db_blocker.unblock():
        pool = ThreadPoolExecutor(1)

        async def in_thread(call: Any, *args: Any) -> Any:
            def run() -> Any:
                try:
                    return call(*args)
                finally:
                    connection.close()

            return await asyncio.get_running_loop().run_in_executor(pool, run)

        route = build_events.route(in_thread=in_thread, stopping=asyncio.Event())
        with serving(Starlette(routes=[route], exception_handlers={WorkflowError: refused}), lifespan="off") as url:
            yield url
        pool.shutdown()


def heard(url: str, cookies: dict[str, str], headers: dict[str, str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Every event until the stream ends."""
    found: list[tuple[str, dict[str, Any]]] = []
    with httpx.stream("GET", url, cookies=cookies, headers=headers, timeout=20, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                found.append((name, json.loads(line[6:])))
    return found


def test_the_log_is_heard_as_it_comes_and_the_stream_ends_with_the_build(stream: str, version: Version, now: datetime) -> None:
    build, held = running_build(version, now)
    cookies = {"sessionid": signed_in("viewer").session.session_key or ""}
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.extend(heard(f"{stream}/ops/builds/{build.id}/events", cookies)))
    thread.start()
    building.note(held, lines=[BuildLine(build=build, seq=n, at=now, text=f"line {n}") for n in range(2, 700)], now=now)
    building.fail(held, error={"code": "x", "message": "y", "suggestion": "", "details": {}}, now=now)
    thread.join(30)
    seqs = [line["seq"] for name, data in got if name == "lines" for line in data["lines"]]
    assert seqs == list(range(1, 700)), "none twice, none missing"
    assert got[-1][0] == "end" and [data["state"] for name, data in got if name == "state"][-1] == "failed"
    again = heard(f"{stream}/ops/builds/{build.id}/events", cookies, {"Last-Event-ID": "698"})
    assert [line["seq"] for name, data in again if name == "lines" for line in data["lines"]] == [699]


def test_the_stream_is_for_staff_only(stream: str, version: Version, now: datetime) -> None:
    build, _ = running_build(version, now)
    url = f"{stream}/ops/builds/{build.id}/events"
    assert httpx.get(url, trust_env=False).status_code == 401
    assert httpx.get(url, cookies={"sessionid": "x" * 500}, trust_env=False).status_code == 401
    outsider = Client()
    outsider.force_login(User.objects.create_user("customer"))
    assert httpx.get(url, cookies={"sessionid": outsider.session.session_key or ""}, trust_env=False).status_code == 403
    inside = {"sessionid": signed_in("viewer").session.session_key or ""}
    assert httpx.get(f"{stream}/ops/builds/{factories.some_id()}/events", cookies=inside, trust_env=False).status_code == 404
    assert httpx.get(f"{stream}/ops/builds/nonsense/events", cookies=inside, trust_env=False).status_code == 404
