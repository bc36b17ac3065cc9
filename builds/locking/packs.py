"""From a pack as the dependency report names it to the exact thing a lock holds, and what that asks of Python.

The order is: the commit or registry version that is asked for; else what the lock before had; else the newest of the
default branch, said in a finding. A registry version comes as the published archive where the registry can be reached,
else as the commit that released it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from builds.findings import WARNING, Finding, finding
from builds.locking import registry, repositories, requirements
from builds.locking.document import COMMIT
from builds.locking.requirements import Asked
from builds.locking.sources import Sources, canonical, pack_address
from controlplane.kernel.errors import Invalid, NotFound, Unavailable, WorkflowError

INFO = "info"
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
# What the canvas writes when it does not know better; a lock decides itself then.
_VAGUE = ("", "nightly", "unknown", "latest", "main", "master")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


class Files(Protocol):
    """A tree of files at one state: a commit, or an archive."""

    def read(self, path: str) -> str | None: ...
    def names(self) -> list[str]: ...


@dataclass
class Located:
    """A pack's entry of the lock, what it asks of Python, how old it is, and what there is to say."""

    entry: dict[str, Any]
    asked: list[Asked] = field(default_factory=list)
    at: datetime | None = None
    findings: list[Finding] = field(default_factory=list)


def locate(pack: Mapping[str, Any], *, sources: Sources, before: Mapping[str, Any] | None = None) -> Located:
    """The exact pack. `before` is its entry in an earlier lock, which counts where no version is asked for."""
    key, registry_id = str(pack.get("key") or ""), str(pack.get("registry_id") or "")
    repository = canonical(str(pack.get("repository") or ""))
    version = str(pack.get("version") or "").strip()
    entry: dict[str, Any] = {"key": key, "registry_id": registry_id, "repository": repository, "classes": sorted(pack.get("classes") or ())}
    wanted = "" if version.lower() in _VAGUE else version
    if not wanted and before is not None:
        wanted = str(before.get("commit") or before.get("version") or "")
        entry["repository"] = repository = repository or str(before.get("repository") or "")
    found: list[Finding] = []
    if not registry_id and not repository:
        raise _trouble(key, Invalid("pack_without_source", f"Nothing says where the pack {key[:120]} comes from.", "Pin it to a repository."))
    try:
        files, at = _files(entry, wanted, sources, found)
    except WorkflowError as error:
        raise _trouble(key, error) from error
    entry["folder"] = _folder(registry_id, repository, key)
    entry["install_script"] = "install.py" in files.names()
    asked, troubles = needs(files, asker=key, sources=sources)
    if entry["install_script"]:
        found.append(_said(INFO, "pack_install_script", key, "runs an install script of its own while the image is built", ""))
    return Located(entry, asked, at, [*found, *troubles])


def needs(files: Files, *, asker: str, sources: Sources) -> tuple[list[Asked], list[Finding]]:
    """What a tree asks of Python: its requirements.txt, as installers of packs do, else its pyproject.toml."""
    text = files.read("requirements.txt")
    if text is not None:
        return requirements.read(text, asker=asker, file="requirements.txt", include=files.read, url_hosts=sources.url_hosts)
    text = files.read("pyproject.toml")
    return requirements.read_pyproject(text, asker=asker, url_hosts=sources.url_hosts) if text is not None else ([], [])


def refuse_same_folder(entries: Iterable[Mapping[str, Any]]) -> None:
    """Two packs cannot lie in one directory: Invalid `pack_twice`."""
    taken: dict[str, str] = {}
    for entry in entries:
        folder, key = str(entry["folder"]).lower(), str(entry["key"])
        if folder in taken:
            message = f"{taken[folder][:120]} and {key[:120]} would both be installed as custom_nodes/{entry['folder']}."
            raise Invalid("pack_twice", message, "Pin the node classes to one of them.", details={"packs": [taken[folder], key]})
        taken[folder] = key


def _files(entry: dict[str, Any], wanted: str, sources: Sources, found: list[Finding]) -> tuple[Files, datetime | None]:
    key, registry_id, repository = entry["key"], entry["registry_id"], entry["repository"]
    if registry_id and registry.VERSION.fullmatch(wanted):
        try:
            archive = registry.archive(registry_id, wanted, sources=sources)
        except (Unavailable, NotFound) as error:
            if not repository:
                raise
            return _released(entry, wanted, sources, found, error)
        entry |= {"version": wanted, "sha256": archive.sha256}
        return archive, archive.written_at
    if not repository:
        message = f"{key[:120]} is named by its registry id only, without a version."
        raise Invalid("pack_without_version", message, "Pin it to a version of the registry, or to a repository.")
    tree = repositories.open_tree(pack_address(sources, repository), wanted, sources=sources, repository=repository)
    entry |= {"commit": tree.commit, "version": requirements.version_in(tree.read("pyproject.toml"))}
    if not wanted:
        found.append(
            _said(
                WARNING,
                "pack_unpinned",
                key,
                f"was asked for without a version; {tree.commit[:12]}, the newest today, is locked",
                "Pin it if another is meant.",
            )
        )
    elif not COMMIT.fullmatch(wanted.lower()):
        found.append(_said(INFO, "pack_ref_resolved", key, f"was asked for as {wanted[:80]!r}, which is {tree.commit[:12]} now", ""))
    return tree, tree.committed_at


def _released(entry: dict[str, Any], wanted: str, sources: Sources, found: list[Finding], error: WorkflowError) -> tuple[Files, datetime | None]:
    """The commit of a registry version, when the registry cannot give its archive."""
    repository = entry["repository"]
    address = pack_address(sources, repository)
    commit = repositories.version_commit(address, wanted, sources=sources, repository=repository)
    if not commit:
        raise error
    tree = repositories.open_tree(address, commit, sources=sources, repository=repository)
    entry |= {"commit": commit, "version": wanted}
    why = f"comes from the commit that released {wanted} ({commit[:12]}), since its archive could not be had ({error.code})"
    found.append(_said(WARNING, "registry_version_from_repository", entry["key"], why, ""))
    return tree, tree.committed_at


def _folder(registry_id: str, repository: str, key: str) -> str:
    name = registry_id or repository.rstrip("/").rpartition("/")[2]
    if not _FOLDER.fullmatch(name) or _DEVICES.fullmatch(name) or name.endswith("."):
        raise Invalid("pack_name_refused", f"{name[:80]!r} of {key[:120]!r} cannot be the name of a directory.", "Use a fork with a plain name.")
    return name


def _said(level: str, code: str, key: str, what: str, suggestion: str) -> Finding:
    return finding(level, code, f"{key[:200]} {what}.", suggestion, pack=key[:300])


def _trouble(key: str, error: WorkflowError) -> WorkflowError:
    """The same error, naming the pack."""
    error.details = {**error.details, "pack": key[:300]}
    if key[:120] not in error.message:
        error.message = f"{key[:120]}: {error.message}"
    return error
