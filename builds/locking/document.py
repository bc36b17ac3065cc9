"""The lock: everything that is needed to make the same image again, as one JSON document.

Its id is the SHA-256 of its canonical JSON in normal form (`normal`): lists in a fixed order, every field
there, nothing about mirrors, indexes, times of making or people. Two locks of the same content are one lock.

Shape (schema "comfyplane-lock/1"; every field is always there, "" and [] mean "none" or "not known"):

    schema           "comfyplane-lock/1"
    platform         {"os": "linux", "arch": "amd64" | "arm64"}
    python           {"version": "3.11", "as_of": ISO time or ""}   minor version of the interpreter; newest upload the
                     freeze could see, "" when the index tells no upload times
    base_image       {"reference": "debian:bookworm-slim", "digest": "sha256:…" or ""}   digest of the registry, or the
                     id of a local image that was never pushed; "" is not reproducible and said in a finding
    comfyui          {"repository": https address, "commit": 40 hex digits, "version": "0.3.64" or ""}
    packs            by key: [{"key": "cnr:<id>" or repository, "registry_id", "repository", "commit", "version", "sha256",
                     "folder", "install_script", "classes": [...]}]
                     With a commit it comes from `repository` at `commit`; without, it is the registry's archive of
                     `version`, whose bytes have `sha256`. `folder` is its directory under custom_nodes; `install_script`
                     says that install.py is in it and must be run once after the Python packages are there.
    python_packages  by name: [{"name", "version", "hashes": ["sha256:…"], "marker", "url", "asked_by", "layer"}]
                     The whole freeze. `url` is "" (from the index), or "git+https://…@<40 hex>" or "https://…whl";
                     those from git have no hashes, their commit stands for them. `asked_by`: "comfyui", "agent",
                     "person" or pack keys that name it directly. `layer`: "torch", "comfyui" or "packs", the earliest
                     image layer that needs it.
    constraints      ["numpy==2.3.5", …]  what the freeze was not allowed to change
    torch            {"version": "2.8.0" or "", "backend": "cpu" | "cu128" | … | ""}
    models           by path: [{"directory", "filename", "sha256", "size_bytes": int or null, "urls", "licence"}]
                     sha256 "" is a file nobody knows; it is used where it is there and never downloaded
    classes          every node class that must import in the finished image
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from builds.versions import canonical_json
from controlplane.kernel.errors import Invalid

SCHEMA = "comfyplane-lock/1"
ARCHES = ("amd64", "arm64")
LAYERS = ("torch", "comfyui", "packs")

Lock = dict[str, Any]

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

_PACK = {"key": "", "registry_id": "", "repository": "", "commit": "", "version": "", "sha256": "", "folder": "", "install_script": False}
_PACKAGE = {"name": "", "version": "", "marker": "", "url": "", "layer": "packs"}
_MODEL = {"directory": "", "filename": "", "sha256": "", "size_bytes": None, "licence": ""}


def normal(document: Mapping[str, Any]) -> Lock:
    """The document with every field there and every list in its order; unknown fields are left out. Checks nothing: see `check`."""
    given = dict(document)
    return {
        "schema": given.get("schema", SCHEMA),
        "platform": {"os": "linux", "arch": "amd64"} | _only(given, "platform", ("os", "arch")),
        "python": {"version": "", "as_of": ""} | _only(given, "python", ("version", "as_of")),
        "base_image": {"reference": "", "digest": ""} | _only(given, "base_image", ("reference", "digest")),
        "comfyui": {"repository": "", "commit": "", "version": ""} | _only(given, "comfyui", ("repository", "commit", "version")),
        "packs": sorted(({**_filled(_PACK, one), "classes": _names(one, "classes")} for one in given.get("packs") or ()), key=lambda one: str(one["key"])),
        "python_packages": sorted(
            ({**_filled(_PACKAGE, one), "hashes": _names(one, "hashes"), "asked_by": _names(one, "asked_by")} for one in given.get("python_packages") or ()),
            key=lambda one: (str(one["name"]), str(one["version"]), str(one["marker"])),
        ),
        "constraints": _names(given, "constraints"),
        "torch": {"version": "", "backend": ""} | _only(given, "torch", ("version", "backend")),
        "models": sorted(
            ({**_filled(_MODEL, one), "urls": _names(one, "urls")} for one in given.get("models") or ()),
            key=lambda one: (str(one["directory"]), str(one["filename"]), str(one["sha256"])),
        ),
        "classes": _names(given, "classes"),
    }


def sha256(document: Mapping[str, Any]) -> str:
    """The lock's id."""
    return hashlib.sha256(canonical_json(normal(document))).hexdigest()


def text(document: Mapping[str, Any]) -> str:
    """The file people keep and compare: sorted as `normal` says, indented, one line feed at the end."""
    return json.dumps(normal(document), indent=2, ensure_ascii=False) + "\n"


def _only(given: Mapping[str, Any], name: str, fields: tuple[str, ...]) -> dict[str, Any]:
    part = given.get(name) or {}
    if not isinstance(part, Mapping):
        raise Invalid("lock_malformed", f"{name} of the lock is not an object.", "Make the lock again.", details={"field": name})
    return {field: part[field] for field in fields if part.get(field) is not None}


def _filled(fields: Mapping[str, Any], one: Any) -> dict[str, Any]:
    if not isinstance(one, Mapping):
        raise Invalid("lock_malformed", "An entry of the lock is not an object.", "Make the lock again.")
    return {field: default if one.get(field) is None else one[field] for field, default in fields.items()}


def _names(one: Mapping[str, Any], field: str) -> list[str]:
    return sorted({str(name) for name in one.get(field) or ()})
