"""`manage.py emergency` does what the other edges do, and says no with exit code 2."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from fleet.models import EmergencyAction, Job
from tests.fleet.emergency_world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World(timezone.now())


def run(*words: str) -> Any:
    out = StringIO()
    call_command("emergency", *words, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_raise_list_and_end(world: World) -> None:
    made = run("raise", world.pool.slug, "--max", "6", "--for", "4h", "--reason", "02:15")
    assert (made["max"], made["state"]) == (6, "active")
    assert [one["id"] for one in run("list")] == [made["id"]]
    assert run("end", made["id"])["state"] == "ended"
    assert run("list") == []
    assert len(run("list", world.pool.slug)) == 1


def test_fast_mode_reads_inputs_as_json_or_text(world: World) -> None:
    made = run("fast", world.pool.slug, "--workflow", world.workflow.slug, "--set", "steps=8", "--force", "steps", "--overflow", "10m", "--for", "90m")
    assert (made["overrides"], made["terms"]["force"], made["overflow_s"]) == ({"steps": 8}, ["steps"], 600.0)


def test_pause_and_shed(world: World) -> None:
    assert run("pause", world.pool.slug, "--class", "low", "--for", "1h")["priority"] == "low"
    assert run("shed", world.pool.slug, "--class", "normal", "--overflow", "30s", "--for", "1h")["overflow_s"] == 30


def test_clear_after_a_dry_run(world: World) -> None:
    world.fill(3)
    assert run("clear", world.pool.slug, "--dry-run")["jobs"] == 3
    assert Job.objects.filter(status="queued").count() == 3
    assert run("clear", world.pool.slug)["cleared"] == 3


def test_people_read_sentences(world: World) -> None:
    out = StringIO()
    call_command("emergency", "raise", world.pool.slug, "--max", "6", "--for", "4h", "--dry-run", stdout=out)
    assert "Up to 6 workers instead of 4" in out.getvalue()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("raise", "POOL", "--max", "2", "--for", "4h"), "raise_changes_nothing"),
        (("raise", "POOL", "--max", "6", "--for", "8d"), "expiry_invalid"),
        (("raise", "nowhere", "--max", "6", "--for", "4h"), "pool_not_found"),
        (("pause", "POOL", "--class", "high", "--for", "4h"), "class_protected"),
        (("fast", "POOL", "--workflow", "WORKFLOW", "--set", "steps", "--for", "4h"), "override_unreadable"),
        (("end", "nothing"), "emergency_not_found"),
    ],
)
def test_a_refusal_is_json_and_exit_code_2(world: World, words: tuple[str, ...], code: str) -> None:
    given = [{"POOL": world.pool.slug, "WORKFLOW": world.workflow.slug}.get(word, word) for word in words]
    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as refusal:
        call_command("emergency", *given, "--json", stdout=out, stderr=err)
    assert refusal.value.code == 2
    assert json.loads(out.getvalue())["error"]["code"] == code
    assert code in err.getvalue()
    assert not EmergencyAction.objects.exists()


def test_a_length_that_is_none_is_a_usage_error(world: World) -> None:
    with pytest.raises(CommandError):
        call_command("emergency", "raise", world.pool.slug, "--max", "6", "--for", "soon")
