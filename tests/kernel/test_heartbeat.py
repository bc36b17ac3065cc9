"""Processes without a port say that they work by the age of a file; the manifests' probes read it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from django_q.brokers import get_broker

from controlplane.kernel import heartbeat, loops
from controlplane.kernel.loops import Loop

BASE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "base"


def alive_until(stop: threading.Event, beats: list[float], most_s: float = 20.0) -> Any:
    """A beat that stops the loops after its third."""

    def beat() -> None:
        beats.append(time.monotonic())
        if len(beats) >= 3:
            stop.set()

    threading.Timer(most_s, stop.set).start()
    return beat


@pytest.mark.django_db(transaction=True)
def test_controllers_beat_while_every_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BEAT_S", 0.01)
    stop, beats = threading.Event(), list[float]()
    one = Loop("one", 0.01, lambda tick: "")
    assert loops.run([one], stop=stop, holder="a", clock=timezone.now, beat=alive_until(stop, beats))
    assert len(beats) == 3


@pytest.mark.django_db(transaction=True)
def test_a_loop_that_hangs_ends_the_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BEAT_S", 0.01)
    monkeypatch.setattr(loops, "HUNG_S", 0.3)
    stop, free, beats = threading.Event(), threading.Event(), list[float]()

    def hang(tick: loops.Tick) -> str:
        began.append(time.monotonic())
        free.wait(10)
        return ""

    began: list[float] = []

    def play() -> None:
        while not began:
            time.sleep(0.01)
        stop.wait(1.0)
        stop.set()
        free.set()

    threading.Thread(target=play, daemon=True).start()
    loops.run(
        [Loop("well", 0.01, lambda tick: ""), Loop("hung", 0.01, hang)], stop=stop, holder="a", clock=timezone.now, beat=lambda: beats.append(time.monotonic())
    )
    assert beats and max(beats) - began[0] < 0.7, "a second went by, and it beat for the first third only"


@pytest.mark.django_db
def test_the_guard_of_the_tasks_process_beats(settings: Any, tmp_path: Path) -> None:
    settings.HEARTBEAT_FILE = str(tmp_path / "alive")
    broker = get_broker()
    assert isinstance(broker, heartbeat.Broker)
    broker.set_stat("cluster", "state", 3)
    first = (tmp_path / "alive").stat().st_mtime_ns
    os.utime(tmp_path / "alive", (1, 1))
    broker.set_stat("cluster", "state", 3)
    assert (tmp_path / "alive").stat().st_mtime_ns >= first


def test_without_a_file_nothing_is_written_and_one_that_cannot_be_is_no_failure(settings: Any, tmp_path: Path) -> None:
    settings.HEARTBEAT_FILE = ""
    heartbeat.beat()
    settings.HEARTBEAT_FILE = str(tmp_path / "no" / "such" / "folder")
    heartbeat.beat()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["controller", "tasks"])
def test_the_probe_of_the_manifest_holds_by_the_age_of_the_file_its_process_touches(name: str, tmp_path: Path) -> None:
    (deployment,) = [one for one in yaml.safe_load_all((BASE / f"{name}.yaml").read_text()) if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (path,) = [one["value"] for one in container["env"] if one["name"] == "HEARTBEAT_FILE"]
    assert any(path.startswith(f"{mount['mountPath']}/") for mount in container["volumeMounts"]), "its root is read-only"
    python, *words = container["livenessProbe"]["exec"]["command"]
    assert container["startupProbe"]["exec"]["command"] == [python, *words] and python == "python"
    there = tmp_path / "alive"
    asked = [sys.executable, *(word.replace(path, str(there)) for word in words)]
    assert asked != [sys.executable, *words]

    def holds() -> bool:
        return subprocess.run(asked, capture_output=True, timeout=30, check=False).returncode == 0

    assert not holds(), "no file yet"
    there.touch()
    assert holds()
    os.utime(there, (time.time() - 70, time.time() - 70))
    assert not holds()
