"""comfy-cli's comfy-lock.yaml: models with paths and hashes, and a Manager snapshot under `custom_nodes`.

`basic:`, `models: [{model, url, paths: [{path}], hashes: [{hash, type}], type}]`, `custom_nodes: {comfyui, …}`. Of the
hash types AutoV1, AutoV2, SHA256, CRC32 and Blake3 only SHA256 says which file it is; the others are named in a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builds.findings import WARNING
from builds.locking.formats import manager_snapshot, texts
from builds.locking.formats import parts as common
from builds.locking.formats.parts import Parts, Written

TITLE = "comfy-lock.yaml"


def read(data: bytes) -> Parts:
    """What the file says."""
    found = texts.any_object(data)
    parts = Parts("comfy-lock")
    manager_snapshot.take(parts, texts.mapping(found.get("custom_nodes"), where="custom_nodes"))
    for number, one in enumerate(texts.listing(found.get("models"), where="models")):
        _model(parts, texts.mapping(one, where=f"models[{number}]"), f"models[{number}]")
    return parts


def write(lock: Mapping[str, Any]) -> Written:
    """The file; `custom_nodes` is what the Manager restores."""
    models = []
    for one in lock["models"]:
        entry: dict[str, Any] = {"model": one["filename"].rpartition("/")[2]}
        if one["urls"]:
            entry["url"] = one["urls"][0]
        entry["paths"] = [{"path": f"models/{one['directory']}/{one['filename']}"}]
        if one["sha256"]:
            entry["hashes"] = [{"hash": one["sha256"], "type": "SHA256"}]
        models.append(entry | {"type": one["directory"]})
    body = {"basic": {}, "models": models, "custom_nodes": manager_snapshot.body(lock)}
    return Written(texts.yaml_text(body), common.lost(TITLE, lock, models=True, model_hashes=True, packages=True, registry_packs=True))


def _model(parts: Parts, entry: Mapping[str, Any], where: str) -> None:
    sha256 = ""
    for number, one in enumerate(texts.listing(entry.get("hashes"), where=f"{where}.hashes")):
        said = texts.mapping(one, where=f"{where}.hashes[{number}]")
        if str(said.get("type", "")).strip().upper() == "SHA256":
            sha256 = str(said.get("hash", ""))
        else:
            parts.say(
                WARNING,
                "hash_not_used",
                f"The {str(said.get('type'))[:20]} hash of {str(entry.get('model'))[:120]} does not say which file it is.",
                field=where,
            )
    if not sha256 and not texts.nothing(entry.get("hash")):
        parts.say(WARNING, "hash_not_used", f"The hash of {str(entry.get('model'))[:120]} is of no named kind.", field=where)
    paths = [str(texts.mapping(one, where=f"{where}.paths").get("path", "")) for one in texts.listing(entry.get("paths"), where=f"{where}.paths")]
    if not paths:
        name, kind = str(entry.get("model", "")), str(entry.get("type", ""))
        if texts.nothing(name) or texts.nothing(kind):
            raise common.malformed(where, "it says neither a path nor a name with a type")
        paths = [f"{kind}/{name}"]
    url = None if texts.nothing(entry.get("url")) else entry.get("url")
    for path in paths:
        parts.models.append(common.model(where=where, path=path.replace("\\", "/"), sha256=sha256, urls=[url]))
