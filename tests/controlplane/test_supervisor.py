"""Children are started again when they end, stopped when asked, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from controlplane.supervisor import Supervisor, free_port, port_is_free

STAYS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"]
FAILS = [sys.executable, "-c", "raise SystemExit(3)"]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]):
    made = Supervisor(run_dir=tmp_path, logs_dir=tmp_path, cwd=tmp_path, say=said.append)
    yield made
    made.kill()


def until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_child_that_ends_is_started_again_more_slowly_each_time(supervisor, said) -> None:
    supervisor.start("web", FAILS, os.environ)
    child = supervisor.children[0]

    def restarted() -> bool:
        supervisor.tend()
        return child.restarts == 2

    until(restarted)
    assert ["0.5 s" in said[0], "1 s" in said[1]] == [True, True]
    assert "web ended with code 3" in said[0] and "web.log" in said[0]


def test_a_stopped_child_stays_stopped_and_a_stubborn_one_is_killed(supervisor, tmp_path) -> None:
    supervisor.start("calm", STAYS, os.environ)
    supervisor.start("stubborn", STUBBORN, os.environ)
    until(lambda: all((tmp_path / f"{name}.log").read_text() == "up\n" for name in ("calm", "stubborn")))
    supervisor.stop(["calm", "stubborn"])
    assert supervisor.wait(["calm"], seconds=5)
    assert not supervisor.wait(["stubborn"], seconds=0.2)
    supervisor.tend()
    assert supervisor.children[0].process is None
    supervisor.tend()
    assert supervisor.children[0].process is None
    stubborn = supervisor.children[1].process
    supervisor.kill()
    assert stubborn.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("process-*.json"))


def test_what_a_killed_supervisor_left_is_ended_by_the_next_but_never_a_stranger(supervisor, tmp_path) -> None:
    supervisor.start("web", STAYS, os.environ)
    left = supervisor.children[0].process
    (tmp_path / "process-tasks.json").write_text(f'{{"pid": {os.getpid()}, "started": 1.0}}')
    following = Supervisor(run_dir=tmp_path, logs_dir=tmp_path, cwd=tmp_path, say=print)
    assert following.end_left_over() == ["web"]
    assert not psutil.pid_exists(left.pid)
    assert psutil.pid_exists(os.getpid())
    assert following.end_left_over() == []


def test_a_log_that_grew_too_long_is_cut(supervisor, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("controlplane.supervisor.MAX_LOG_BYTES", 10)
    supervisor.start("web", STAYS, os.environ)
    (tmp_path / "web.log").write_text("x" * 100)
    supervisor.cap_logs()
    assert (tmp_path / "web.log").stat().st_size <= 3 and (tmp_path / "web.log.1").stat().st_size >= 100


def test_a_taken_port_is_seen(tmp_path) -> None:
    assert port_is_free("127.0.0.1", free_port("127.0.0.1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not port_is_free("127.0.0.1", taken.getsockname()[1])
