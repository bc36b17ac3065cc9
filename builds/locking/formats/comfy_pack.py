"""comfy-pack's snapshot, alone or inside a .cpack.zip, in both generations.

The first lists `custom_nodes: [{"url", "commit_hash", "disabled"}]`; the later one is ComfyUI-Manager's snapshot with
`python` and `models`. Model files are named from the workspace: "models/checkpoints/x.safetensors".
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from builds.containers import ZIP
from builds.findings import WARNING
from builds.locking.formats import manager_snapshot, texts
from builds.locking.formats import parts as common
from builds.locking.formats.parts import Parts, Written
from controlplane.kernel.errors import Invalid, Malformed, TooLarge

TITLE = "A comfy-pack snapshot"
# What comfy-pack itself keeps out of its list of packages.
_LEFT_OUT = ("nvidia-", "bentoml", "onnxruntime", "conda")


def read(data: bytes) -> Parts:
    """What a snapshot.json or a .cpack.zip says; the archive's requirements.txt counts where the snapshot lists no packages."""
    requirements = ""
    if data.startswith(ZIP):
        data, requirements = _unpacked(data)
    found = texts.json_object(data, what="snapshot.json")
    parts = Parts("comfy-pack")
    if isinstance(found.get("custom_nodes"), list):
        _first(parts, found)
    else:
        manager_snapshot.take(parts, found)
    python = found.get("python")
    parts.python = str(python).strip()[:40] if isinstance(python, str | int | float) else ""
    _models(parts, texts.listing(found.get("models"), where="models"))
    if not parts.pins:
        for line in requirements.splitlines()[:5_000]:
            # Lines with options (an index, hashes) say how to install, not what.
            if not line.strip().startswith("-"):
                common.pin(parts, line.split(" \\")[0].split(" --hash")[0])
    return parts


def write(lock: Mapping[str, Any]) -> Written:
    """The later generation."""
    snapshot = manager_snapshot.body(lock)
    snapshot["pips"] = {line: "" for line in snapshot["pips"] if not line.startswith(_LEFT_OUT)}
    snapshot = {"python": lock["python"]["version"], **snapshot, "models": _written_models(lock)}
    findings = common.lost(TITLE, lock, models=True, model_hashes=True, packages=True, registry_packs=True, python=True)
    return Written(_json(snapshot), [*findings, *_left_out(lock)])


def write_first(lock: Mapping[str, Any]) -> Written:
    """The first generation: packs from git only, packages in a requirements.txt beside it."""
    nodes = [{"url": one["repository"], "commit_hash": one["commit"], "disabled": False} for one in lock["packs"] if one["commit"]]
    snapshot = {"python": lock["python"]["version"], "comfyui": lock["comfyui"]["commit"], "models": _written_models(lock), "custom_nodes": nodes}
    return Written(_json(snapshot), common.lost(f"{TITLE} of the first generation", lock, models=True, model_hashes=True, python=True))


def archive(lock: Mapping[str, Any], *, graph: Mapping[str, Any], ui_graph: Mapping[str, Any] | None) -> Written:
    """A .cpack.zip of a version: its snapshot, both graphs, and the freeze with hashes as requirements.txt."""
    snapshot = write(lock)
    lines = [" \\\n    ".join([common.pinned(one), *(f"--hash={value}" for value in one["hashes"])]) for one in lock["python_packages"]]
    files = {"snapshot.json": snapshot.data, "requirements.txt": ("\n".join(lines) + "\n").encode(), "workflow_api.json": _json(graph)}
    if ui_graph is not None:
        files["workflow.json"] = _json(ui_graph)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            # A fixed date: the same lock is the same file.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            out.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return Written(packed.getvalue(), snapshot.findings)


def _first(parts: Parts, found: Mapping[str, Any]) -> None:
    common.set_comfyui(parts, found.get("comfyui"), where="comfyui")
    disabled = []
    for number, one in enumerate(texts.listing(found.get("custom_nodes"), where="custom_nodes")):
        where = f"custom_nodes[{number}]"
        entry = texts.mapping(one, where=where)
        if texts.truth(entry.get("disabled")):
            disabled.append(str(entry.get("url", ""))[:200])
            continue
        if not entry.get("url"):
            raise common.malformed(where, "it has no url")
        parts.packs.append(common.pack(where=where, repository=str(entry["url"]), version=entry.get("commit_hash")))
        if not parts.packs[-1]["version"]:
            parts.say(
                WARNING, "pack_without_commit", f"{str(entry['url'])[:200]} has no commit in the file; its newest is taken when it is locked.", field=where
            )
    common.left_behind(parts, disabled)
    for name, value in texts.mapping(found.get("pips"), where="pips").items():
        common.pin(parts, name if not value else f"{name}=={value}")


def _models(parts: Parts, listed: list[Any]) -> None:
    skipped = []
    for number, one in enumerate(listed):
        where = f"models[{number}]"
        entry = texts.mapping(one, where=where)
        if texts.truth(entry.get("disabled")):
            skipped.append(str(entry.get("filename", ""))[:120])
            continue
        source = texts.mapping(entry.get("source"), where=f"{where}.source")
        urls = [source.get("download_url") or source.get("url")]
        path = str(entry.get("filename", "")).replace("\\", "/")
        parts.models.append(common.model(where=where, path=path, sha256=entry.get("sha256"), size=entry.get("size"), urls=urls))
    common.left_behind(parts, skipped)


def _written_models(lock: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = []
    for one in lock["models"]:
        entry: dict[str, Any] = {
            "filename": f"models/{one['directory']}/{one['filename']}",
            "size": one["size_bytes"] or 0,
            "sha256": one["sha256"],
            "disabled": False,
        }
        if one["urls"]:
            entry["source"] = {"download_url": one["urls"][0], "url": one["urls"][0]}
        models.append(entry)
    return models


def _left_out(lock: Mapping[str, Any]) -> list[Any]:
    names = [one["name"] for one in lock["python_packages"] if one["name"].startswith(_LEFT_OUT)]
    if not names:
        return []
    found = Parts("comfy-pack")
    found.say(WARNING, "packages_left_out", f"comfy-pack keeps these packages out of its list: {', '.join(names)[:600]}.")
    return found.findings


def _unpacked(data: bytes) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            names = set(packed.namelist())
            if "snapshot.json" not in names:
                raise Invalid(
                    "archive_without_snapshot", "This archive holds no snapshot.json, so it is no comfy-pack.", "Export the workflow with comfy-pack again."
                )
            return _member(packed, "snapshot.json"), _member(packed, "requirements.txt").decode("utf-8", "replace") if "requirements.txt" in names else ""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError) as error:
        raise Malformed("archive_damaged", "The archive cannot be unpacked.", "Pack it again, without a password.") from error


def _member(packed: zipfile.ZipFile, name: str) -> bytes:
    with packed.open(name) as member:
        data = member.read(texts.MAX_BYTES + 1)
    if len(data) > texts.MAX_BYTES:
        raise TooLarge("lock_file_too_large", f"{name} in the archive is larger than {texts.MAX_BYTES:,} bytes.", "Export it again.")
    return data


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
