"""What formats have in common: the words of a foreign lock in ours, and what was lost on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builds.findings import WARNING, Finding, finding
from builds.locking import checking
from builds.locking.document import COMMIT, SHA256
from builds.locking.packs import INFO
from builds.locking.sources import canonical
from controlplane.kernel.errors import Invalid

MAX_ENTRIES = 5_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_VAGUE = ("nightly", "unknown", "latest", "none", "null")


@dataclass
class Parts:
    """What a file says. `comfyui` is a commit, tag or version, or ""; `pins` are "name==version" lines.

    `packs`: [{"registry_id", "repository", "version"}]; `models`: as in the lock. `lock` is the whole document when the
    file is one of ours.
    """

    format: str
    comfyui: str = ""
    python: str = ""
    packs: list[dict[str, str]] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lock: dict[str, Any] | None = None

    def say(self, level: str, code: str, message: str, suggestion: str = "", field: str = "") -> None:
        self.findings.append(finding(level, code, message, suggestion, field=field))

    def as_json(self) -> dict[str, Any]:
        said = {"format": self.format, "comfyui": self.comfyui, "python": self.python, "packs": self.packs, "pins": self.pins, "models": self.models}
        return said | {"findings": self.findings}


@dataclass(frozen=True)
class Written:
    """A file, and what it could not hold."""

    data: bytes
    findings: list[Finding]


def pack(*, where: str, registry_id: str = "", repository: str = "", version: Any = "") -> dict[str, str]:
    """One pack of `Parts`. Raises Invalid `lock_file_malformed` for an id, address or version that is none."""
    registry_id, repository, said = registry_id.strip(), repository.strip(), "" if version is None else str(version).strip()
    if registry_id and not _ID.fullmatch(registry_id):
        raise malformed(where, f"{registry_id[:80]!r} is no id of the registry")
    if repository:
        repository = canonical(repository)
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?/[A-Za-z0-9._~/+%-]{1,250}", repository):
            raise malformed(where, f"{repository[:120]!r} is no https address of a repository")
    if said.lower() in _VAGUE:
        said = ""
    if said and (not _REF.fullmatch(said) or ".." in said):
        raise malformed(where, f"{said[:80]!r} is no commit or version")
    return {"registry_id": registry_id, "repository": repository, "version": said}


def model(*, where: str, path: str, sha256: Any = "", size: Any = None, urls: Iterable[Any] = (), licence: str = "") -> dict[str, Any]:
    """One model from its path below models/. Raises Invalid `model_path_refused`, `lock_file_malformed`."""
    relative = path.strip().removeprefix("./").removeprefix("models/")
    directory, _, filename = relative.partition("/")
    trouble = checking.path_trouble(relative) or ("" if filename else "names no folder under models")
    if not trouble and directory.lower() in ("configs", "custom_nodes"):
        trouble = "would lie among configuration or code, not among models"
    if trouble:
        raise Invalid("model_path_refused", f"{where}: the path {path[:120]!r} {trouble}.", "Correct the file.", details={"path": path[:300]})
    digest = str(sha256 or "").strip().lower()
    if digest and not SHA256.fullmatch(digest):
        raise malformed(where, f"{str(sha256)[:80]!r} is no SHA-256")
    if size is not None and (isinstance(size, bool) or not str(size).isdecimal()):
        size = None
    listed = [str(url).strip() for url in urls if url]
    for url in listed:
        if not checking.is_address(url):
            raise malformed(where, f"{url[:120]!r} is no address")
    size_bytes = None if size is None else int(size)
    return {"directory": directory, "filename": filename, "sha256": digest, "size_bytes": size_bytes, "urls": sorted(set(listed)), "licence": licence[:120]}


def pin(parts: Parts, line: str) -> None:
    """Keep one line of a freeze, or say why it cannot be."""
    line = line.strip()
    if not line or line.startswith("#"):
        return
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        parts.say(WARNING, "pin_not_locked", f"{line[:120]!r} is no pinned package of an index; it is not taken over.", field="pips")
        return
    exact = re.fullmatch(r"===?([0-9A-Za-z][0-9A-Za-z.!+_-]*)", str(wanted.specifier))
    if wanted.url or exact is None:
        parts.say(WARNING, "pin_not_locked", f"{line[:120]!r} is not exact or comes from an address; it is not taken over.", field="pips")
        return
    parts.pins.append(f"{canonicalize_name(wanted.name)}=={exact[1]}")


def set_comfyui(parts: Parts, value: Any, *, where: str) -> None:
    """ComfyUI's commit, tag or version."""
    said = "" if value is None else str(value).strip()
    if said and (not _REF.fullmatch(said) or ".." in said):
        raise malformed(where, f"{said[:80]!r} is no commit or version of ComfyUI")
    parts.comfyui = said
    if said and not COMMIT.fullmatch(said.lower()):
        parts.say(INFO, "comfyui_by_name", f"ComfyUI is named {said!r}; the lock holds the commit that means now.", field=where)
    if not said:
        parts.say(WARNING, "comfyui_unsaid", "The file does not say which ComfyUI; the one of the settings is taken.", field=where)


def left_behind(parts: Parts, packs: Iterable[str]) -> None:
    """Say which packs are switched off and so not taken over."""
    listed = sorted(packs)
    if listed:
        parts.say(INFO, "packs_disabled", f"Switched off in the file and not taken over: {', '.join(listed)[:600]}.")


def lost(format_title: str, lock: Mapping[str, Any], **what: bool) -> list[Finding]:
    """What `format_title` has no place for, as far as the lock holds it. `what` names the parts the format can hold."""
    held = {
        "models": (bool(lock["models"]), f"{len(lock['models'])} model(s) with their hashes"),
        "model_hashes": (any(one["sha256"] for one in lock["models"]), "the hashes of models"),
        "packages": (bool(lock["python_packages"]), f"{len(lock['python_packages'])} Python package(s)"),
        "package_hashes": (any(one["hashes"] for one in lock["python_packages"]), "the hashes of Python packages"),
        "base_image": (bool(lock["base_image"]["digest"]), "the digest of the base image"),
        "archives": (any(one["sha256"] for one in lock["packs"]), "the hashes of packs' archives"),
        "registry_packs": (any(not one["commit"] for one in lock["packs"]), "packs that come from the registry"),
        "python": (bool(lock["python"]["version"]), "the version of Python"),
        "platform": (True, "the platform"),
        "classes": (bool(lock["classes"]), "the node classes that must import"),
        "constraints": (bool(lock["constraints"]), "the constraints"),
        "as_of": (bool(lock["python"]["as_of"]), "the time that bounds the freeze"),
    }
    missing = [words for name, (present, words) in held.items() if present and not what.get(name, False)]
    if not missing:
        return []
    message = f"{format_title} has no place for {', '.join(missing[:-1]) + ' and ' if len(missing) > 1 else ''}{missing[-1]}."
    return [finding(WARNING, "format_cannot_hold", message, "Keep the Comfyplane lock beside it to rebuild the same image.", field=format_title)]


def pinned(package: Mapping[str, Any]) -> str:
    """A package of the freeze as pip would write it."""
    return f"{package['name']} @ {package['url']}" if package["url"] else f"{package['name']}=={package['version']}"


def malformed(where: str, why: str) -> Invalid:
    return Invalid("lock_file_malformed", f"{where}: {why}.", "Correct the file, or export it again.", details={"field": where})
