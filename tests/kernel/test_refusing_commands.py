"""Every command of ours refuses alike, and none refuses in its own way."""

from __future__ import annotations

import json
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand
from django.db import OperationalError

from controlplane.kernel.commands import Refusing, plain, read_file, write_file
from controlplane.kernel.errors import Conflict, NotFound, WorkflowError

OURS = ("builds", "fleet", "billing", "controlplane", "controlplane.kernel")


def outcome(raised: Exception) -> tuple[Any, dict[str, Any], str]:
    """(exit code, error, standard error) of a command that raises this."""

    class Command(Refusing):
        def handle(self, *args: Any, **options: Any) -> None:
            raise raised

    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as left:
        call_command(Command(), stdout=out, stderr=err, skip_checks=True)
    return left.value.code, json.loads(out.getvalue())["error"], err.getvalue()


def test_a_refusal_is_json_on_standard_output_a_sentence_on_standard_error_and_exit_code_2() -> None:
    code, error, said = outcome(Conflict("pool_busy", "The pool is busy.", "Wait.", details={"pool": "default"}))
    assert code == 2
    assert (error["code"], error["suggestion"], error["details"]) == ("pool_busy", "Wait.", {"pool": "default"})
    assert said == "pool_busy: The pool is busy. Wait.\n"


def test_a_database_that_cannot_be_used_is_a_refusal_with_the_reason() -> None:
    code, error, said = outcome(OperationalError("no such table: fleet_pool"))
    assert (code, error["code"], error["details"]) == (2, "no_database", {"reason": "no such table: fleet_pool"})
    assert "manage.py migrate" in said


def test_what_steers_a_terminal_is_not_said() -> None:
    _, error, said = outcome(WorkflowError("odd", "A title \x1b[2J\nof strangers."))
    assert said == "odd: A title  [2J of strangers.\n"
    assert error["message"] == "A title \x1b[2J\nof strangers."
    assert plain("wie üblich → 1") == "wie üblich → 1"


def test_a_defect_is_no_refusal() -> None:
    class Command(Refusing):
        def handle(self, *args: Any, **options: Any) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError):
        call_command(Command(), skip_checks=True)


def test_files_are_read_up_to_a_limit_and_refused_by_name(tmp_path: Path) -> None:
    write_file(str(tmp_path / "a"), b"abcdef")
    assert read_file(str(tmp_path / "a"), limit=4) == b"abcd"
    for name in (str(tmp_path / "none"), str(tmp_path), "nul\0"):
        with pytest.raises(NotFound, match="file_unreadable"):
            read_file(name, limit=4)
        with pytest.raises(NotFound, match="file_not_written"):
            write_file(name if name != str(tmp_path / "none") else f"{name}/under", b"")


def test_no_command_handles_a_refusal_by_itself() -> None:
    """One that can be refused derives from `Refusing`; those that cannot are named here."""
    own_way = {"controller", "credentials", "up", "reconcile", "verify_audit", "builds"}
    found = set()
    for name, app in get_commands().items():
        if app not in OURS and str(app).rpartition(".")[2] not in OURS:
            continue
        module = import_module(f"{app}.management.commands.{name}")
        command: type[BaseCommand] = module.Command
        found.add(name)
        assert issubclass(command, Refusing) or name in own_way, name
        assert "except WorkflowError" not in Path(str(module.__file__)).read_text(), name
    assert {"convert", "emergency", "simulate", "demo_load", "up"} <= found
