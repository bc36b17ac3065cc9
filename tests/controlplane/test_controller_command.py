from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

import fleet.loops
from controlplane.kernel.loops import Loop, Tick
from controlplane.kernel.models import LoopLease

pytestmark = pytest.mark.django_db


def broken(tick: Tick) -> str:
    raise ValueError("no pool")


@pytest.fixture
def two_loops(monkeypatch) -> None:
    monkeypatch.setattr(fleet.loops, "LOOPS", [Loop("fine", 1.0, lambda tick: f"epoch {tick.epoch}"), Loop("broken", 60.0, broken)])


def run(*args: str) -> str:
    out = StringIO()
    call_command("controller", *args, stdout=out, stderr=out)
    return out.getvalue()


def test_once_ticks_the_chosen_loops_and_prints_their_notes(two_loops) -> None:
    assert run("--once", "--only", "fine") == "fine: epoch 1\n"
    assert run("--once", "--only", "fine") == "fine: epoch 2\n"
    assert LoopLease.objects.get().holder == ""


def test_once_fails_when_a_loop_fails_after_all_had_their_turn(two_loops) -> None:
    out = StringIO()
    with pytest.raises(CommandError, match="At least one loop failed"):
        call_command("controller", "--once", stdout=out, stderr=out)
    assert "fine: epoch 1" in out.getvalue() and "ValueError: no pool" in out.getvalue()


def test_an_unknown_loop_is_refused_with_the_names_there_are(two_loops) -> None:
    with pytest.raises(CommandError, match=r"No loop is named fin\. There are: broken, fine\."):
        run("--once", "--only", "fin")


def test_list_tells_leader_age_and_note(two_loops) -> None:
    run("--once", "--only", "fine")
    fine, never = run("--list").splitlines()
    assert "every 1 s" in fine and "s ago, epoch 1, led by nobody, 0 failures in a row: epoch 1" in fine
    assert never.split() == ["broken", "every", "60", "s", "never", "ran"]


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_real_controller_leads_and_gives_its_leads_back_when_asked_to_stop(asked: signal.Signals) -> None:
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        url = f"sqlite:///{name}"
    else:
        url = "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**connection.settings_dict)
    command = [sys.executable, "manage.py", "controller", "--only", "leases", "deadlines"]
    process = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url}, stderr=subprocess.PIPE, text=True, cwd=settings.BASE_DIR)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        led = 0
        for line in process.stderr:
            led += "loop led" in line
            if led == 2:
                break
        process.send_signal(asked)
        assert process.wait(20) == 0
    finally:
        watchdog.cancel()
        process.kill()
        process.stderr.close()
    assert list(LoopLease.objects.values_list("name", "holder", "epoch").order_by("name")) == [("deadlines", "", 1), ("leases", "", 1)]
