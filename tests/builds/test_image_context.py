"""The build context: the same bytes for the same lock, nothing that leads out of it, no weights; and what advisories and SBOM say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import warnings
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from builds.images import context, sbom, trees, vulnerabilities
from builds.locking.document import normal
from builds.locking.sources import Sources
from controlplane.kernel.errors import Invalid, NotFound, Unavailable, WorkflowError

IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@example.invalid"))}
AGENT = Path(__file__).resolve().parents[2] / "fleet" / "agent"


def commit(directory: Path, files: dict[str, str], links: dict[str, str] | None = None) -> str:
    def git(*words: str) -> str:
        env = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null"}
        return subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True, check=True, env=env).stdout.strip()

    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / ".git").exists():
        git("init", "-q", "-b", "main")
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    for name, target in (links or {}).items():
        (directory / name).symlink_to(target)
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    return git("rev-parse", "HEAD")


@pytest.fixture
def mirror(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "m").mkdir()
    weights = {"models/checkpoints/put_checkpoints_here": "", "models/vae/left.safetensors": "weights"}
    comfyui = commit(tmp_path / "m" / "ComfyUI", {"main.py": "x", **weights})
    pack = commit(tmp_path / "m" / "pack", {"__init__.py": "NODE_CLASS_MAPPINGS = {}", "run.sh": "#!/bin/sh"}, {"same.py": "__init__.py"})
    return {"comfyui": comfyui, "pack": pack}


def document(mirror: dict[str, str], **more: Any) -> dict[str, Any]:
    pack = {"key": "p", "repository": "https://example.com/a/pack", "commit": mirror["pack"], "folder": "pack"}
    repository = "https://example.com/a/ComfyUI"
    return normal({"comfyui": {"repository": repository, "commit": mirror["comfyui"]}, "packs": [pack], "python": {"version": "3.11"}, **more})


def written(tmp_path: Path, told: dict[str, Any], **more: Any) -> tuple[bytes, context.Packed]:
    out = io.BytesIO()
    sources = Sources(cache=tmp_path / "cache", pack_mirror=str(tmp_path / "m"), offline=True, **more)
    packed = context.write(told, text="FROM x\n", sources=sources, agent=AGENT, out=out)
    return out.getvalue(), packed


def test_the_same_lock_gives_the_same_bytes(tmp_path: Path, mirror: dict[str, str]) -> None:
    first, packed = written(tmp_path, document(mirror))
    again, _ = written(tmp_path, document(mirror))
    assert first == again and packed.sha256 == hashlib.sha256(first).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert {"Dockerfile", "lock.json", "comfyui/main.py", "packs/pack/__init__.py", "agent/fleet/agent/probe.py", "agent/fleet/__init__.py"} <= set(entries)
    assert {(e.mtime, e.uid, e.gid) for e in entries.values()} == {(context.MTIME, 0, 0)}
    assert entries["packs/pack/same.py"].linkname == "__init__.py"
    assert not any("django" in name or name.startswith("agent/fleet/models") for name in entries)


def test_weights_in_a_source_tree_stay_out_and_are_told(tmp_path: Path, mirror: dict[str, str]) -> None:
    data, packed = written(tmp_path, document(mirror))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "comfyui/models/vae/left.safetensors" not in tar.getnames()
        assert "comfyui/models/checkpoints/put_checkpoints_here" in tar.getnames()
    assert any("left.safetensors" in note for note in packed.notes)


def test_a_commit_that_vanished_is_named(tmp_path: Path, mirror: dict[str, str]) -> None:
    with pytest.raises(NotFound) as refused:
        written(tmp_path, document({**mirror, "pack": "0" * 40}))
    assert refused.value.code == "commit_gone"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", ".."])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, mirror: dict[str, str], target: str) -> None:
    bad = commit(tmp_path / "m" / "pack", {}, {"bad": target})
    with pytest.raises(Invalid) as refused:
        written(tmp_path, document({**mirror, "pack": bad}))
    assert refused.value.code == "source_refused"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", "a/./b", "", "a\nb", "a\x00b", "x" * 300])
def test_a_path_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        trees.checked("p", name)


def zipped(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


def test_a_registry_archive_comes_from_the_mirror_and_must_have_its_hash(tmp_path: Path, mirror: dict[str, str]) -> None:
    data = zipped({"top/__init__.py": "A = 1", "top/sub/b.py": ""})
    (tmp_path / "m" / "nice-pack-1.2.0.zip").write_bytes(data)
    pack = {"key": "cnr:nice-pack", "registry_id": "nice-pack", "version": "1.2.0", "sha256": hashlib.sha256(data).hexdigest(), "folder": "nice-pack"}
    told, _ = written(tmp_path, document(mirror, packs=[pack]))
    with tarfile.open(fileobj=io.BytesIO(told)) as tar:
        assert {"packs/nice-pack/__init__.py", "packs/nice-pack/sub/b.py"} <= set(tar.getnames())
    with pytest.raises(Invalid) as refused:
        written(tmp_path, document(mirror, packs=[{**pack, "sha256": "0" * 64}]))
    assert refused.value.code == "hash_mismatch" and refused.value.details["received"] == pack["sha256"]
    with pytest.raises(Unavailable) as missing:
        written(tmp_path, document(mirror, packs=[{**pack, "version": "9"}]))
    assert missing.value.code == "archive_unreachable"


@pytest.mark.parametrize("data", [b"", b"no archive", zipped({"../x": "1"}), zipped({"/etc/x": "1"})])
def test_an_archive_that_is_none_or_leads_out_is_refused(data: bytes) -> None:
    with pytest.raises(WorkflowError):
        list(trees.of_archive(data, name="p"))


# -- advisories --------------------------------------------------------------------------------------


def advisory(name: str, *, ecosystem: str = "PyPI", **affected: Any) -> dict[str, Any]:
    return {"id": f"X-{name}", "summary": "bad", "affected": [{"package": {"ecosystem": ecosystem, "name": name}, **affected}]}


def spans(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(
    ("version", "affected", "hit"),
    [
        ("1.5", spans({"introduced": "0"}, {"fixed": "2.0"}), True),
        ("2.0", spans({"introduced": "0"}, {"fixed": "2.0"}), False),
        ("2.0rc1", spans({"introduced": "0"}, {"fixed": "2.0"}), True),
        ("2.0", spans({"introduced": "1.0"}, {"last_affected": "2.0"}), True),
        ("2.0.1", spans({"introduced": "1.0"}, {"last_affected": "2.0"}), False),
        ("0.9", spans({"introduced": "1.0"}), False),
        ("3.5", spans({"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"fixed": "4.0"}), True),
        ("2.5", spans({"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"fixed": "4.0"}), False),
        ("7", {"versions": ["7"]}, True),
        ("1.0", spans({"introduced": "nonsense"}), False),
        ("not a version", spans({"introduced": "0"}), False),
    ],
)
def test_a_version_is_affected_as_osv_says(tmp_path: Path, version: str, affected: dict[str, Any], hit: bool) -> None:
    path = tmp_path / "osv.json"
    path.write_text(json.dumps([advisory("Some_Package", **affected), advisory("some-package", ecosystem="npm", versions=[version])]))
    told = vulnerabilities.report({"some.package": version}, database=str(path))
    assert told["scanner"] == "osv-file" and bool(told["found"]) is hit


def test_without_a_database_nothing_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    for database in ("", str(tmp_path / "none"), str(tmp_path / "empty"), str(tmp_path / "broken.json")):
        told = vulnerabilities.report({"a": "1"}, database=database)
        assert told["scanner"] is None and "nothing was looked up" in told["reason"] and "found" not in told


def test_a_zip_of_records_is_read_and_withdrawn_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    records = [json.dumps(advisory("a", versions=["1"])), json.dumps(advisory("b", versions=["1"]) | {"withdrawn": "2026"}), "["]
    path.write_bytes(zipped({f"{number}.json": text for number, text in enumerate(records)}))
    told = vulnerabilities.report({"a": "1", "b": "1"}, database=str(path))
    assert [hit["package"] for hit in told["found"]] == ["a"] and (told["records"], told["unread"]) == (2, 1)


def test_the_bill_of_materials_is_valid_and_says_what_differs_from_the_lock(now: datetime) -> None:
    told = normal(
        {
            "python_packages": [{"name": "NumPy", "version": "2.0", "hashes": ["sha256:" + "a" * 64]}, {"name": "gone", "version": "1"}],
            "comfyui": {"repository": "https://github.com/Comfy-Org/ComfyUI", "commit": "c" * 40},
            "packs": [{"key": "cnr:<script>", "repository": "https://github.com/a/b", "commit": "d" * 40}],
            "base_image": {"reference": "debian:bookworm", "digest": "sha256:" + "b" * 64},
        }
    )
    installed = {"python": {"numpy": "2.0", "extra": "3"}, "debian": {"libc6": "2.36-9+deb12u14"}}
    made = sbom.make(told, lock_id="e" * 64, image="worker", image_id="sha256:" + "f" * 64, **installed, now=now)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None
    components = {c["name"]: {p["name"]: p["value"] for p in c.get("properties", ())} | c for c in json.loads(made)["components"]}
    assert components["numpy"]["purl"] == "pkg:pypi/numpy@2.0"
    assert (components["gone"]["comfyplane:installed"], components["extra"]["comfyplane:locked"]) == ("false", "false")
    assert components["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.36")
    assert components["ComfyUI"]["version"] == "c" * 40 and "cnr:<script>" in components
