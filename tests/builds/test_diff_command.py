"""manage.py diff: versions by every name, files beside them, exit codes, and JSON errors for what cannot be read."""

from __future__ import annotations

import copy
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from registry_samples import object_info, prompt

from builds import branches, importing, libraries, revisions, versions
from builds.models import Branch, Lock, Version, VersionLock
from controlplane.kernel.errors import NotFound

pytestmark = pytest.mark.django_db
BASE = prompt("02_blend_blur_two_outputs")


def softer() -> dict[str, Any]:
    made = copy.deepcopy(BASE)
    made["4"]["inputs"]["sigma"] = 3.5
    return made


def diff(*args: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("diff", *args, stdout=out, stderr=err)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture
def boat(now: datetime) -> Version:
    """v1 on main and in production, v2 on the branch soft."""
    libraries.store(name="t", document=object_info(), current=True, now=now)
    made = importing.import_graph(document=BASE, slug="boat", author="a", expose=["4.sigma"], now=now).version
    branches.create(workflow=made.workflow, name="soft", actor="a", now=now)
    importing.import_graph(document=softer(), slug="boat", author="a", branch="soft", now=now)
    versions.promote(workflow=made.workflow, channel="production", version=made, actor="a", now=now)
    return made


def test_versions_are_named_by_branch_number_hash_and_channel(boat: Version) -> None:
    one, two = revisions.version_named("boat"), revisions.version_named("boat@soft")
    assert (one.number, two.number) == (1, 2)
    for name in ("boat@v1", "boat@1", "boat@main", "boat:production", f"boat@{one.sha256[:10]}"):
        assert revisions.version_named(name) == one, name
    for name in ("boat@v9", "boat@nothing", "boat:lab", "none", "Boat", "boat@", "boat@../x", "@v1", "", "x" * 400):
        with pytest.raises(NotFound):
            revisions.version_named(name)


def test_the_diff_is_said_in_words_and_as_json(boat: Version) -> None:
    code, text, _ = diff("boat", "boat@soft")
    assert code == 0
    assert text.splitlines()[:2] == ["boat v1 → boat v2", "API compatible; 1 node changed."]
    assert "sigma: 1.5 → 3.5" in text
    code, text, _ = diff("boat@v1", "boat@v2", "--json", "--exit-code")
    said = json.loads(text)
    assert (code, said["api"]["verdict"], said["a"]["version"], said["b"]["version"]) == (1, "compatible", 1, 2)
    assert diff("boat", "boat:production", "--exit-code")[0] == 0


def test_a_file_is_compared_as_if_it_were_imported_there(boat: Version, tmp_path: Path) -> None:
    file = tmp_path / "softer.json"
    file.write_text(json.dumps(softer()))
    code, text, _ = diff("boat", str(file), "--json", "--exit-code")
    said = json.loads(text)
    assert (code, said["counts"], said["limits"]) == (1, {"added": 0, "removed": 0, "changed": 1}, {})
    assert [reason["code"] for reason in said["api"]["reasons"]] == ["default_changed"]
    assert diff("boat@soft", str(file), "--exit-code")[0] == 0
    assert diff(str(file), str(file), "--exit-code")[0] == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not json", "invalid_json"),
        (b'{"nodes": []}', "canvas_empty"),
        (b"[]", "not_a_workflow"),
        (b"x" * 5_000_000, "graph_too_large"),
        (json.dumps({str(n): {"class_type": "A", "inputs": {}} for n in range(10_000)}).encode(), "graph_too_large"),
        (json.dumps({"1": {"class_type": "A", "inputs": {"x": ["1", 0]}}}).encode(), "graph_cyclic"),
        (None, "file_unreadable"),
    ],
)
def test_what_cannot_be_read_is_a_json_error_and_exit_code_two(content: bytes | None, code: str, boat: Version, tmp_path: Path) -> None:
    file = tmp_path / "it.json"
    if content is not None:
        file.write_bytes(content)
    status, text, said = diff("boat", str(file))
    assert (status, json.loads(text)["error"]["code"]) == (2, code)
    assert json.loads(text)["error"]["suggestion"]
    assert code in said


def test_unknown_versions_are_a_json_error_too(boat: Version) -> None:
    for name, code in (("boat@v9", "unknown_version"), ("nowhere", "unknown_workflow"), ("\x1b[2J", "unknown_revision")):
        status, text, said = diff("boat", name)
        assert (status, json.loads(text)["error"]["code"]) == (2, code)
        assert "\x1b" not in said


def test_newest_locks_are_compared(boat: Version, now: datetime) -> None:
    for version, commit in ((boat, "a" * 40), (revisions.version_named("boat@soft"), "b" * 40)):
        lock = Lock.objects.create(sha256=commit + "0" * 24, document={"packs": [{"key": "cnr:x", "commit": commit}]}, created_at=now, created_by="a")
        VersionLock.objects.create(version=version, lock=lock, made_at=now, made_by="a")
    said = json.loads(diff("boat", "boat@soft", "--json")[1])
    assert (said["pack_source"], said["packs"]["changed"]) == ("lock", [{"name": "cnr:x", "before": "a" * 40, "after": "b" * 40}])


def test_the_import_command_commits_onto_a_branch(boat: Version, tmp_path: Path) -> None:
    file = tmp_path / "boat.json"
    other = softer()
    other["4"]["inputs"]["blur_radius"] = 9
    file.write_text(json.dumps(other))
    out = io.StringIO()
    call_command("import_workflow", str(file), "--slug", "boat", "--branch", "wider", "--json", stdout=out)
    said = json.loads(out.getvalue())
    assert (said["version"], said["branch"]) == (3, "wider")
    assert {line.name: line.head.number for line in Branch.objects.all()} == {"main": 1, "soft": 2, "wider": 3}
