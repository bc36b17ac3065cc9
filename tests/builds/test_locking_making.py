"""A lock made for real: git mirrors, a resolver, an index, all on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lock_world
import pytest
from factories import make_version, make_workflow

from builds.locking import document, making
from builds.models import Lock, VersionLock
from controlplane.kernel.errors import Conflict, Invalid, NotFound, WorkflowError
from controlplane.kernel.models import AuditEntry

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> lock_world.World:
    return lock_world.World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def version() -> Any:
    return make_version(make_workflow(now=NOW), now=NOW)


def prepare(world: lock_world.World, version: Any, *packs: dict[str, Any], **wishes: Any) -> making.Prepared:
    given = {"sources": world.sources, "target": world.target, "report": lock_world.report(*packs)} | wishes
    return making.prepare(version=version, **given)


def frames(world: lock_world.World) -> dict[str, Any]:
    return lock_world.pack(lock_world.FRAMES, world.frames_commit, classes=["FrameSplit", "FrameJoin"])


def test_a_lock_holds_commits_hashes_and_layers(world: lock_world.World, version: Any) -> None:
    made = prepare(world, version, frames(world)).document
    assert made["comfyui"] == {"repository": lock_world.COMFYUI, "commit": world.comfyui_commit, "version": "0.3.64"}
    (pack,) = made["packs"]
    assert (pack["commit"], pack["folder"], pack["install_script"], pack["classes"]) == (
        world.frames_commit,
        "comfyui-frames",
        True,
        ["FrameJoin", "FrameSplit"],
    )
    packages = {one["name"]: one for one in made["python_packages"]}
    assert {name: one["version"] for name, one in packages.items()} == {
        "aiohttp": "3.13.0", "colour": "0.4.6", "filelock": "3.20.0", "numpy": "2.3.3", "pillow": "11.3.0",
        "torch": "2.8.0", "torchvision": "0.23.0", "yarl": "1.22.0",
    }  # fmt: skip
    assert {name: one["layer"] for name, one in packages.items()} == {
        "aiohttp": "comfyui", "colour": "packs", "filelock": "torch", "numpy": "torch", "pillow": "comfyui",
        "torch": "torch", "torchvision": "torch", "yarl": "comfyui",
    }  # fmt: skip
    assert packages["colour"]["asked_by"] == [lock_world.FRAMES]
    assert all(one["hashes"] for one in packages.values())
    assert {"numpy==2.3.3", "torch==2.8.0", "torchvision==0.23.0"} == set(made["constraints"])
    assert made["classes"] == ["EmptyImage", "FrameJoin", "FrameSplit", "SaveImage"]
    assert made["torch"] == {"version": "2.8.0", "backend": "cpu"}


def test_an_index_without_dates_is_said_and_the_freeze_is_of_today(world: lock_world.World, version: Any, tmp_path: Path) -> None:
    index = lock_world.simple_index(tmp_path / "simple")
    prepared = prepare(world, version, sources=replace(world.sources, find_links=(), index=index.as_uri()))
    assert {one["code"] for one in prepared.findings} & {"freeze_unbounded", "index_without_dates"}
    assert {one["name"]: one["version"] for one in prepared.document["python_packages"]}["torch"] == "2.8.0"


def test_the_same_content_is_the_same_lock_from_any_mirror_at_any_time(world: lock_world.World, version: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "comfyui-frames").symlink_to(world.frames.path)
    other = replace(world.sources, cache=tmp_path / "cache", pack_mirror=str(elsewhere), comfyui=str(world.comfyui.path))
    assert prepare(world, version, frames(world)).sha256 == prepare(world, version, frames(world), sources=other).sha256


def test_a_lock_is_kept_once_and_audited_once(world: lock_world.World, version: Any) -> None:
    first = making.keep(version=version, prepared=prepare(world, version, frames(world)), actor="ada", now=NOW)
    again = making.keep(version=version, prepared=prepare(world, version, frames(world)), actor="bob", now=NOW)
    assert first.pk == again.pk == document.sha256(first.document)
    assert Lock.objects.count() == VersionLock.objects.count() == 1
    assert AuditEntry.objects.filter(action="lock.make", object_id=str(version.pk)).count() == 1
    assert making.of(version).lock == first  # type: ignore[union-attr]


def test_a_version_that_returns_to_an_earlier_lock_has_it_again(world: lock_world.World, version: Any) -> None:
    plain, packed = prepare(world, version), prepare(world, version, frames(world))
    for number, prepared in enumerate((plain, packed, plain)):
        making.keep(version=version, prepared=prepared, actor="ada", now=NOW.replace(minute=number))
    held = making.of(version)
    assert held is not None and held.lock_id == plain.sha256
    assert VersionLock.objects.count() == 2


def test_a_conflict_names_both_sides_before_any_build(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "# needs the old one\nnumpy<2\n"}, branch="old", at=lock_world.AT + 30)
    with pytest.raises(Conflict) as refused:
        prepare(world, version, frames(world), lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    error = refused.value
    assert error.code == "requirements_conflict"
    sides = {(one["asker"], one["requirement"], one["where"]) for one in error.details["sides"]}
    assert (lock_world.TONES, "numpy<2", "requirements.txt:2") in sides
    assert ("comfyui", "numpy==2.3.3", "its own freeze") in sides
    assert "numpy<2" in error.message and "ComfyUI" in error.message
    assert error.details["way_out"] == "--constraint 'numpy<2'" and "--constraint 'numpy<2'" in error.suggestion


def test_the_way_out_of_a_conflict_is_one(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "numpy<2\n"}, branch="out", at=lock_world.AT + 30)
    made = prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]), constraints=["numpy<2"]).document
    assert {one["name"]: one["version"] for one in made["python_packages"]}["numpy"] == "1.26.4"
    assert "numpy<2" in made["constraints"]


def test_a_conflict_deep_below_names_who_asked(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "oldmath\n"}, branch="deep", at=lock_world.AT + 30)
    with pytest.raises(Conflict) as refused:
        prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    askers = {one["asker"] for one in refused.value.details["sides"]}
    assert askers == {lock_world.TONES, "comfyui"}
    assert "numpy<1.25" in refused.value.details["said"]


def test_two_packs_that_fight_are_both_named(world: lock_world.World, version: Any) -> None:
    left = world.tones.commit({"requirements.txt": "aiohttp>=3.13\n"}, branch="left", at=lock_world.AT + 30)
    right = world.frames.commit({"requirements.txt": "aiohttp<3.13\n"}, branch="right", at=lock_world.AT + 30)
    with pytest.raises(Conflict) as refused:
        prepare(
            world, version,
            lock_world.pack(lock_world.TONES, left, classes=["ToneCurve"]), lock_world.pack(lock_world.FRAMES, right, classes=["FrameJoin"]),
        )  # fmt: skip
    assert {lock_world.TONES, lock_world.FRAMES} <= {one["asker"] for one in refused.value.details["sides"]}


def test_a_pack_moves_only_what_it_must_and_it_is_said(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "aiohttp<3.13\n"}, branch="lower", at=lock_world.AT + 30)
    prepared = prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    assert {one["name"]: one["version"] for one in prepared.document["python_packages"]}["aiohttp"] == "3.12.0"
    (moved,) = [one for one in prepared.findings if one["code"] == "packages_moved"]
    assert "aiohttp 3.13.0 → 3.12.0" in moved["message"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("-e .", "requirement_editable"),
        ("./vendored/thing.whl", "requirement_path"),
        ("/opt/thing-1.0-py3-none-any.whl", "requirement_path"),
        ("git+https://git.example.com/people/lib.git", "requirement_git_unpinned"),
        ("lib @ git+https://git.example.com/people/lib.git@main", "requirement_git_unpinned"),
        ("lib @ https://evil.example.net/lib-1.0-py3-none-any.whl", "requirement_host"),
        ("lib @ http://evil.example.net/lib-1.0-py3-none-any.whl", "requirement_url"),
        ("lib @ file:///etc/passwd", "requirement_url"),
        ("-r ../../secrets.txt", "requirement_file_missing"),
        ("numpy>=2 && rm -rf /", "requirement_unreadable"),
    ],
)
def test_what_cannot_be_locked_is_refused_with_its_line(world: lock_world.World, version: Any, line: str, code: str) -> None:
    commit = world.tones.commit({"requirements.txt": f"numpy\n\n{line}\n"}, branch="odd", at=lock_world.AT + 40)
    with pytest.raises(Invalid) as refused:
        prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    assert refused.value.code == "requirements_refused"
    (found,) = [one for one in refused.value.details["findings"] if one["level"] == "error"]
    assert found["code"] == code and found["field"] == "requirements.txt:3"


def test_an_index_of_its_own_is_left_out_and_said(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "--extra-index-url https://evil.example.net/simple\nnumpy\n"}, branch="index", at=lock_world.AT + 40)
    prepared = prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    assert "requirement_index" in {one["code"] for one in prepared.findings}
    assert "evil" not in document.text(prepared.document)


def test_a_package_nobody_has_is_named_with_who_asks(world: lock_world.World, version: Any) -> None:
    commit = world.tones.commit({"requirements.txt": "no-such-package\n"}, branch="unknown", at=lock_world.AT + 40)
    with pytest.raises(Invalid) as refused:
        prepare(world, version, lock_world.pack(lock_world.TONES, commit, classes=["ToneCurve"]))
    assert refused.value.code == "requirement_unknown" and lock_world.TONES in refused.value.message


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("0" * 40, "commit_gone"),
        ("no-such-branch", "ref_unknown"),
        ("--upload-pack=touch /tmp/owned", "ref_refused"),
        ("main@{yesterday}", "ref_refused"),
        ("../../etc", "ref_refused"),
    ],
)
def test_a_commit_that_vanished_and_a_hostile_one_are_told_apart(world: lock_world.World, version: Any, ref: str, code: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        prepare(world, version, lock_world.pack(lock_world.FRAMES, ref, classes=["FrameJoin"]))
    assert refused.value.code == code
    assert refused.value.details["pack"] == lock_world.FRAMES


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc", "ext::sh -c 'touch /tmp/owned'", "--upload-pack=x", "https://user:secret@git.example.com/a/b", "ssh://git@git.example.com/a/b",
"https://127.0.0.1/a/b", "https://169.254.169.254/latest/meta-data", "https://localhost/a/b", "https://git.example.com/", "gopher://x/y",
    ],
)  # fmt: skip
def test_hostile_addresses_never_reach_git(world: lock_world.World, version: Any, address: str) -> None:
    with pytest.raises(Invalid) as refused:
        prepare(world, version, lock_world.pack(address, "1" * 40, classes=["FrameJoin"]))
    assert refused.value.code in ("repository_refused", "lock_malformed", "pack_name_refused")


def test_a_pack_without_version_keeps_the_commit_of_the_lock_before(world: lock_world.World, version: Any, tmp_path: Path) -> None:
    other = lock_world.World(tmp_path)
    loose = lock_world.pack(lock_world.FRAMES, "", classes=["FrameJoin"])
    first = prepare(other, version, loose)
    assert "pack_unpinned" in {one["code"] for one in first.findings}
    making.keep(version=version, prepared=first, actor="ada", now=NOW)
    newer = other.frames.commit({"requirements.txt": ""}, at=lock_world.AT + 100)
    assert prepare(other, version, loose).sha256 == first.sha256
    upgraded = prepare(other, version, loose, upgrade=True).document
    assert upgraded["packs"][0]["commit"] == newer


def test_a_registry_version_is_found_in_its_repository_when_the_registry_is_away(world: lock_world.World, version: Any) -> None:
    world.tones.commit({"pyproject.toml": '[project]\nname = "comfyui-tones"\nversion = "1.3.0"\n'}, at=lock_world.AT + 50)
    prepared = prepare(world, version, lock_world.pack(lock_world.TONES, "1.2.0", classes=["ToneCurve"], registry_id="comfyui-tones"))
    (entry,) = prepared.document["packs"]
    assert (entry["commit"], entry["version"]) == (world.tones_commit, "1.2.0")
    assert "registry_version_from_repository" in {one["code"] for one in prepared.findings}


def test_classes_nobody_is_sure_of_refuse_the_lock(world: lock_world.World, version: Any) -> None:
    report = lock_world.report()
    report["classes"].append({"class": "Puzzle", "nodes": ["9"], "status": "ambiguous", "pack": None, "candidates": []})
    with pytest.raises(Invalid) as refused:
        prepare(world, version, report=report)
    assert refused.value.code == "dependencies_unresolved" and refused.value.details["classes"] == ["Puzzle"]


def test_nodes_that_sleep_or_are_drawn_only_are_not_locked(world: lock_world.World, version: Any) -> None:
    report = lock_world.report(lock_world.pack(lock_world.TONES, world.tones_commit, classes=["Dozing"]))
    report["classes"] = [one for one in report["classes"] if one["class"] != "Dozing"]
    report["classes"] += [
        {"class": "Dozing", "nodes": ["8"], "status": "resolved", "asleep": True},
        {"class": "MarkdownNote", "nodes": ["9"], "status": "ui_only"},
    ]
    report["models"] = [{"name": "dozing.safetensors", "directory": "loras", "sha256": "8" * 64, "asleep": True}]
    made = prepare(world, version, report=report).document
    assert made["packs"] == [] and made["classes"] == ["EmptyImage", "SaveImage"] and made["models"] == []


def test_a_model_keeps_its_hash_and_a_hostile_path_is_refused(world: lock_world.World, version: Any) -> None:
    good = {
        "name": "xl/base.safetensors",
        "directory": "checkpoints",
        "url": "https://models.example.org/base",
        "sha256": "8" * 64,
        "size_bytes": 5,
        "licence": "x",
    }
    made = prepare(world, version, report=lock_world.report(models=[good])).document
    assert made["models"] == [
        {
            "directory": "checkpoints",
            "filename": "xl/base.safetensors",
            "sha256": "8" * 64,
            "size_bytes": 5,
            "urls": ["https://models.example.org/base"],
            "licence": "x",
        }
    ]
    for name in ("../../etc/passwd", "CON.safetensors", "a\0b", "/etc/passwd", "x. "):
        with pytest.raises(Invalid) as refused:
            prepare(world, version, report=lock_world.report(models=[good | {"name": name}]))
        assert refused.value.details["findings"][0]["code"] == "model_path_refused"


def test_a_directory_that_is_no_comfyui_is_refused(world: lock_world.World, version: Any, tmp_path: Path) -> None:
    lock_world.Repository(tmp_path / "else.git").commit({"README.md": "hello"})
    with pytest.raises(Invalid) as refused:
        prepare(world, version, sources=replace(world.sources, comfyui=str(tmp_path / "else.git")))
    assert refused.value.code == "not_comfyui"
    with pytest.raises(WorkflowError) as missing:
        prepare(world, version, sources=replace(world.sources, comfyui=str(tmp_path / "nothing")))
    assert missing.value.code == "repository_unreachable"
    with pytest.raises(NotFound):
        prepare(world, version, target=world.with_target(ref="v9.9.9"))


def test_the_document_survives_a_trip_through_the_database(world: lock_world.World, version: Any) -> None:
    prepared = prepare(world, version, frames(world))
    kept = making.keep(version=version, prepared=prepared, actor="ada", now=NOW)
    fresh = Lock.objects.get(pk=kept.pk)
    assert document.sha256(fresh.document) == kept.pk == document.sha256(json.loads(document.text(fresh.document)))
