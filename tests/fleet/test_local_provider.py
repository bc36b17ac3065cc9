"""Local workers are real processes here: started, found, signalled, reaped, and never mistaken for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from fleet.models import Pool, Worker
from fleet.providers import local
from fleet.providers.local import Local, environment, process_of
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as on Linux")]

STAYS = "import os, time; print('here', sorted(os.environ), flush=True); time.sleep(60)"
IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Local]]:
    made: list[Local] = []

    def build(program: str = STAYS) -> Local:
        made.append(Local(data_dir=tmp_path, command=(sys.executable, "-c", program)))
        return made[-1]

    yield build
    for provider in made:
        for ref in provider.known().values():
            provider.stop(ref, force=True)


def worker_row(now: datetime) -> Worker:
    pool = factories.make_pool(now=now, provider="local")
    return Worker.objects.create(pool=pool, name="w-test", instance="pool-abc", state="ordered", state_since=now, ordered_at=now)


def until(true: Callable[[], object], *, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_a_worker_runs_in_a_session_of_its_own_and_is_told_only_what_it_needs(make, now, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "top secret")
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("COMFYUI_URL", "http://127.0.0.1:8188")
    provider = make()
    ref = provider.launch(worker_row(now))
    log = tmp_path / "logs" / "worker-w-test.log"
    until(lambda: "here" in log.read_text())
    told = log.read_text()
    assert "COMFYPLANE_POOL_TOKEN" in told and "COMFYPLANE_INSTANCE" in told and "COMFYUI_URL" in told
    assert "SECRET_KEY" not in told and "DATABASE_URL" not in told and "DJANGO" not in told
    assert os.getsid(ref["pid"]) == ref["pid"] != os.getsid(0)
    assert process_of(ref) and provider.known() == {"pool-abc": ref} == make().known()
    assert provider.launch(Worker.objects.get()) == ref, "asked twice, it starts one"
    pool = Pool(slug="pool")
    assert make().observe(pool).instances["pool-abc"].phase == "running" and not make().observe(Pool(slug="poo")).instances
    assert make().boot_log(ref)[0].startswith("here") and make().boot_log({"log": "/etc/passwd"}) == []


def test_stop_asks_first_and_force_ends_it_with_no_zombie_left(make, now, tmp_path) -> None:
    provider = make(IGNORES_TERM)
    ref = provider.launch(worker_row(now))
    until(lambda: "here" in (tmp_path / "logs" / "worker-w-test.log").read_text())
    provider.stop(ref)
    time.sleep(0.1)
    assert process_of(ref)
    provider.stop(ref, force=True)
    until(lambda: process_of(ref) is None)
    until(lambda: provider.observe(Pool(slug="pool")).instances["pool-abc"].phase == "ended" and not psutil.pid_exists(ref["pid"]))
    provider.stop(ref, force=True)  # stopping what is gone does nothing
    provider.forget("pool-abc", ref)
    assert provider.known() == {} and not (tmp_path / "run" / "work" / "pool-abc").exists()


def test_a_pid_in_use_again_is_never_touched(make, tmp_path) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stale = {"pid": innocent.pid, "started": time.time() - 3600}
        provider = make()
        assert process_of(stale) is None
        provider.stop(stale, force=True)
        provider.stop({"pid": innocent.pid}, force=True)
        assert innocent.poll() is None and process_of(stale) is None
    finally:
        innocent.send_signal(signal.SIGKILL)
        innocent.wait()


def test_only_the_last_logs_are_kept_and_none_grows_without_end(make, now, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(local, "MAX_LOG_BYTES", 1000)
    logs = tmp_path / "logs"
    logs.mkdir()
    for n in range(30):
        (logs / f"worker-old{n}.log").write_text("x")
    provider = make()
    provider.launch(worker_row(now))
    assert len(list(logs.glob("worker-*"))) == local.KEEP_LOGS
    (logs / "worker-long.log").write_text("y" * 2000)
    provider.cap_logs()
    assert (logs / "worker-long.log").stat().st_size == 0 and (logs / "worker-long.log.1").stat().st_size == 2000


def test_what_is_passed_on_is_a_list_of_names_not_everything() -> None:
    assert environment({"PATH": "/bin", "SECRET_KEY": "x", "AWS_SECRET_ACCESS_KEY": "x", "COMFYUI_DIR": "/c", "PGPASSWORD": "x"}) == {
        "PATH": "/bin",
        "COMFYUI_DIR": "/c",
    }
