"""Comfy-Org's comfy-build.yaml: a build's definition with models, packs and requirement text.

schema comfy-build/1 around a definition of schema distribution-definition/0. What its own builder refuses is refused
here too: `baseImage: null`, models without exactly one source, paths among configuration or code, DOS device names.
Models and packs that are only uploads there (`blobId`) have no source here and are named in findings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from builds.findings import WARNING
from builds.locking.document import COMMIT
from builds.locking.formats import parts as common
from builds.locking.formats import texts
from builds.locking.formats.parts import Parts, Written
from builds.locking.packs import INFO
from controlplane.kernel.errors import Invalid

TITLE = "comfy-build.yaml"
SCHEMA, DEFINITION = "comfy-build/1", "distribution-definition/0"
MAX_ENTRIES, MAX_PIP_BYTES = 512, 65_536
_POLICIES = ("modelPolicy", "partnerNodePolicy", "customNodePolicy")
# Folders of models as ComfyUI spells them; another spelling would lie beside them on a careful file system.
_FOLDERS = frozenset(
    (
        *("audio_encoders", "checkpoints", "clip", "clip_vision", "controlnet", "diffusers", "diffusion_models", "embeddings", "gligen"),
        *("hypernetworks", "loras", "model_patches", "photomaker", "style_models", "text_encoders", "unet", "upscale_models", "vae", "vae_approx"),
    )
)


def read(data: bytes) -> Parts:
    """What the file says. Raises Invalid `lock_file_malformed`, `base_image_null`, `model_path_refused`."""
    found = texts.any_object(data)
    if found.get("schema") != SCHEMA:
        raise common.malformed("schema", f"{str(found.get('schema'))[:60]!r} is not {SCHEMA}")
    body = texts.mapping(found.get("definition"), where="definition")
    if body.get("schema", DEFINITION) != DEFINITION:
        raise common.malformed("definition.schema", f"{str(body.get('schema'))[:60]!r} is not {DEFINITION}")
    if "baseImage" in body and texts.nothing(body["baseImage"]):
        raise Invalid(
            "base_image_null", "definition.baseImage is null.", "Leave it out for the default, or name one.", details={"field": "definition.baseImage"}
        )
    parts = Parts("comfy-build")
    common.set_comfyui(parts, _comfyui(body.get("baseComfyVersion")), where="definition.baseComfyVersion")
    if "baseImage" in body:
        parts.say(INFO, "base_image_not_taken", f"The base image {str(body['baseImage'])[:80]!r} is one of their catalogue; the one of the settings is used.")
    environment = texts.mapping(body.get("environment"), where="definition.environment")
    python = environment.get("pythonVersion") or environment.get("python")
    parts.python = "" if texts.nothing(python) else str(python)[:40]
    for number, one in enumerate(texts.listing(body.get("customNodes"), where="definition.customNodes", most=MAX_ENTRIES)):
        _pack(parts, texts.mapping(one, where=f"definition.customNodes[{number}]"), f"definition.customNodes[{number}]")
    for number, one in enumerate(texts.listing(body.get("models"), where="definition.models", most=MAX_ENTRIES)):
        _model(parts, texts.mapping(one, where=f"definition.models[{number}]"), f"definition.models[{number}]")
    pins = "" if texts.nothing(body.get("pipDependencies")) else body["pipDependencies"]
    if not isinstance(pins, str) or len(pins.encode()) > MAX_PIP_BYTES:
        raise common.malformed("definition.pipDependencies", "it is not text of at most 64 KiB")
    for line in pins.replace("\\\n", " ").splitlines():
        common.pin(parts, re.sub(r"\s+--hash[= ]\S+", "", line))
    for name in _POLICIES:
        if not texts.nothing(body.get(name)):
            parts.say(WARNING, "policy_not_taken", f"{name} is a rule about images, not a part of one; it is not taken over.", field=f"definition.{name}")
    return parts


def write(lock: Mapping[str, Any]) -> Written:
    """The file; `id` and `syncedRevision` are null, as before its first push."""
    findings = common.lost(TITLE, lock, models=True, model_hashes=True, packages=True, registry_packs=True, python=True, platform=True, package_hashes=True)
    said = Parts("comfy-build")
    pins = [" ".join([common.pinned(one), *(f"--hash={value}" for value in one["hashes"])]) for one in lock["python_packages"]]
    if len("\n".join(pins).encode()) > MAX_PIP_BYTES:
        pins = [common.pinned(one) for one in lock["python_packages"]]
        said.say(WARNING, "format_cannot_hold", f"{TITLE} holds 64 KiB of requirements, so the hashes of Python packages are left out.", field=TITLE)
    models = []
    for one in lock["models"]:
        if not one["urls"] or not one["urls"][0].startswith("https://") or "/" in one["filename"]:
            path = f"{one['directory']}/{one['filename']}"
            said.say(WARNING, "format_cannot_hold", f"{TITLE} takes models from https addresses as single file names; {path[:160]} is left out.", field=TITLE)
            continue
        entry = {"type": one["directory"], "filename": one["filename"], "sha256": one["sha256"], "sourceUri": one["urls"][0]}
        models.append({name: value for name, value in entry.items() if value})
    definition = {
        "schema": DEFINITION,
        "baseComfyVersion": lock["comfyui"]["commit"],
        "models": sorted(models, key=lambda one: (one["type"], one["filename"])),
        "customNodes": [_written(one) for one in lock["packs"]],
        "pipDependencies": "\n".join(pins),
        "environment": {
            "arch": lock["platform"]["arch"],
            "os": lock["platform"]["os"],
            "pythonVersion": lock["python"]["version"],
            "torch": lock["torch"]["version"],
        },
    }
    for one in lock["packs"]:
        if one["commit"] and not one["repository"].startswith("https://github.com/"):
            said.say(WARNING, "format_cannot_hold", f"Their builder takes repositories of github.com only, and refuses {one['repository'][:200]}.", field=TITLE)
    body = {"schema": SCHEMA, "id": None, "name": "comfyplane", "description": "", "syncedRevision": None, "definition": definition}
    return Written(texts.yaml_text(body), [*findings, *said.findings])


def _written(pack: Mapping[str, Any]) -> dict[str, str]:
    if pack["commit"]:
        return {"name": pack["folder"], "repository": pack["repository"], "gitRef": pack["commit"], "commit": pack["commit"]}
    return {"name": pack["folder"], "id": pack["registry_id"], "registryVersion": pack["version"]}


def _comfyui(value: Any) -> str | None:
    said = None if texts.nothing(value) else str(value).strip()
    return f"v{said}" if said and re.fullmatch(r"\d+(\.\d+)+", said) else said


def _pack(parts: Parts, entry: Mapping[str, Any], where: str) -> None:
    if texts.nothing(entry.get("name")):
        raise common.malformed(where, "it has no name")
    said = {name: "" if texts.nothing(entry.get(name)) else str(entry[name]) for name in ("id", "registryVersion", "repository", "gitRef", "commit", "blobId")}
    if said["commit"] and not COMMIT.fullmatch(said["commit"]):
        raise common.malformed(where, "its commit is not 40 hex digits")
    if said["registryVersion"]:
        if not said["id"]:
            raise common.malformed(where, "it has a registryVersion and no id")
        parts.packs.append(common.pack(where=where, registry_id=said["id"], repository=said["repository"], version=said["registryVersion"]))
    elif said["repository"]:
        version = said["commit"] or said["gitRef"]
        parts.packs.append(common.pack(where=where, registry_id=said["id"], repository=said["repository"], version=version))
        if version and not COMMIT.fullmatch(version):
            parts.say(
                WARNING, "pack_by_name", f"{said['repository'][:200]} is named by {version[:80]!r}; the lock holds the commit that means now.", field=where
            )
    elif said["blobId"] or not texts.nothing(entry.get("localPath")):
        parts.say(
            WARNING, "upload_not_locked", f"The pack {str(entry['name'])[:120]} was uploaded there and has no source here.", "Give its repository.", where
        )
    else:
        raise common.malformed(where, "it has no source: registryVersion, repository or blobId")


def _model(parts: Parts, entry: Mapping[str, Any], where: str) -> None:
    kind, uri, blob = ("" if texts.nothing(entry.get(name)) else str(entry[name]) for name in ("type", "sourceUri", "blobId"))
    if not kind:
        raise common.malformed(where, "it has no type")
    if kind.lower() in _FOLDERS and kind not in _FOLDERS:
        raise Invalid(
            "model_path_refused", f"{where}: the folder is spelled {kind.lower()!r}, not {kind[:60]!r}.", "Correct the file.", details={"path": kind[:120]}
        )
    if uri and blob:
        raise common.malformed(where, "it has both sourceUri and blobId")
    filename = "" if texts.nothing(entry.get("filename")) else str(entry["filename"])
    if not filename and uri:
        filename = uri.partition("?")[0].rstrip("/").rpartition("/")[2]
    if "/" in filename or "\\" in filename:
        raise Invalid(
            "model_path_refused", f"{where}: the file name {filename[:120]!r} is more than a name.", "Correct the file.", details={"path": filename[:300]}
        )
    if uri and not uri.startswith("https://"):
        raise common.malformed(where, "its sourceUri is not https")
    if not uri:
        what = "was uploaded there and has no source here" if blob else "has no source"
        parts.say(WARNING, "upload_not_locked", f"The model {filename[:120] or kind} {what}.", "Give its address.", where)
        if not filename:
            return
    size = entry.get("sizeBytes")
    parts.models.append(common.model(where=where, path=f"{kind}/{filename}", sha256=entry.get("sha256"), size=size, urls=[uri]))
