"""ComfyUI-Manager's snapshot: ComfyUI's commit, packs from git and from the registry, and a pip freeze.

`{"comfyui": sha, "git_custom_nodes": {url: {"hash", "disabled"}}, "cnr_custom_nodes": {id: version},
"file_custom_nodes": [{"filename", "disabled"}], "pips": {"name==version": ""}}`. Older ones lack cnr_custom_nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from builds.findings import WARNING
from builds.locking.formats import parts as common
from builds.locking.formats import texts
from builds.locking.formats.parts import Parts, Written

TITLE = "A ComfyUI-Manager snapshot"


def read(data: bytes) -> Parts:
    """What a snapshot says; as YAML it stands under `custom_nodes`."""
    found = texts.any_object(data)
    if isinstance(found.get("custom_nodes"), dict):
        found = found["custom_nodes"]
    parts = Parts("manager")
    take(parts, found)
    return parts


def take(parts: Parts, found: Mapping[str, Any]) -> None:
    """Fill `parts` from the body of a snapshot."""
    common.set_comfyui(parts, None if texts.nothing(found.get("comfyui")) else found["comfyui"], where="comfyui")
    disabled = [*_git(parts, found), *_registry(parts, found)]
    for number, one in enumerate(texts.listing(_files(found), where="file_custom_nodes")):
        entry = texts.mapping(one, where=f"file_custom_nodes[{number}]") if not isinstance(one, str) else {"filename": one}
        name = str(entry.get("filename", ""))[:120]
        if texts.truth(entry.get("disabled")):
            disabled.append(name)
        else:
            parts.say(
                WARNING, "file_node_not_locked", f"The single file {name!r} under custom_nodes has no source, so it cannot be locked.", "Make a pack of it."
            )
    common.left_behind(parts, disabled)
    for name, value in texts.mapping(found.get("pips"), where="pips").items():
        # Newer ones write {"name": "version"}, older ones {"name==version": ""}.
        common.pin(parts, name if texts.nothing(value) or "==" in name or " @ " in name else f"{name}=={value}")


def write(lock: Mapping[str, Any]) -> Written:
    """A snapshot the Manager restores: packs with a commit as git packs, the others as registry packs."""
    findings = common.lost(TITLE, lock, packages=True, registry_packs=True)
    return Written((json.dumps(body(lock), indent=4, ensure_ascii=False) + "\n").encode(), findings)


def body(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The snapshot as an object."""
    return {
        "comfyui": lock["comfyui"]["commit"],
        "git_custom_nodes": {one["repository"]: {"hash": one["commit"], "disabled": False} for one in lock["packs"] if one["commit"]},
        "cnr_custom_nodes": {one["registry_id"]: one["version"] for one in lock["packs"] if not one["commit"]},
        "file_custom_nodes": [],
        "pips": {common.pinned(one): "" for one in lock["python_packages"]},
    }


def _git(parts: Parts, found: Mapping[str, Any]) -> list[str]:
    disabled = []
    for url, said in texts.mapping(found.get("git_custom_nodes"), where="git_custom_nodes").items():
        where = f"git_custom_nodes[{str(url)[:120]}]"
        entry = {"hash": said} if isinstance(said, str) else texts.mapping(said, where=where)
        if texts.truth(entry.get("disabled")):
            disabled.append(str(url))
            continue
        parts.packs.append(common.pack(where=where, repository=str(url), version=None if texts.nothing(entry.get("hash")) else entry["hash"]))
        if not parts.packs[-1]["version"]:
            parts.say(WARNING, "pack_without_commit", f"{str(url)[:200]} has no commit in the file; its newest is taken when it is locked.", field=where)
        for line in texts.listing(entry.get("pip"), where=f"{where}.pip"):
            parts.say(WARNING, "pack_pip_not_locked", f"{str(url)[:200]} lists {str(line)[:80]!r} to be installed; its own requirements count.", field=where)
    return disabled


def _registry(parts: Parts, found: Mapping[str, Any]) -> list[str]:
    disabled = []
    listed = found.get("cnr_custom_nodes")
    # Some tools write an empty list where they mean an empty mapping.
    for name, said in texts.mapping(None if listed == [] else listed, where="cnr_custom_nodes").items():
        where = f"cnr_custom_nodes[{str(name)[:120]}]"
        entry = texts.mapping(said, where=where) if isinstance(said, dict) else {"version": said}
        if texts.truth(entry.get("disabled")):
            disabled.append(str(name))
            continue
        parts.packs.append(common.pack(where=where, registry_id=str(name), version=None if texts.nothing(entry.get("version")) else entry["version"]))
    return disabled


def _files(found: Mapping[str, Any]) -> Any:
    listed = found.get("file_custom_nodes")
    return [{"filename": name, **(one if isinstance(one, dict) else {})} for name, one in listed.items()] if isinstance(listed, dict) else listed
