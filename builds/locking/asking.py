"""How people ask for locks: WORKFLOW[@VERSION] for a version, and one form for what a lock and its making say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builds import queries
from builds.findings import Finding
from builds.locking import document
from builds.models import Version
from controlplane.kernel.errors import NotFound


def version_named(text: str) -> Version:
    """The version `slug@number`, `slug@channel` or `slug@hash`; the newest one for `slug` alone. Raises NotFound, Gone."""
    slug, _, wanted = text.partition("@")
    workflow = queries.workflow(slug)
    found = queries.version(workflow, wanted) if wanted else queries.latest(workflow)
    if found is None:
        raise NotFound("unknown_version", f"{workflow.slug} has no version yet.", "Import one: manage.py import_workflow.")
    return found


def said(version: Version, lock: Mapping[str, Any], findings: Iterable[Finding], *, changed: bool | None = None) -> dict[str, Any]:
    """What commands and the API answer."""
    answer: dict[str, Any] = {"workflow": version.workflow.slug, "version": version.number, "lock": document.sha256(lock)}
    if changed is not None:
        answer["changed"] = changed
    return answer | {"findings": list(findings), "document": document.normal(lock)}


def summary(answer: Mapping[str, Any]) -> list[str]:
    """The same for people, line by line."""
    lock = answer["document"]
    base, comfyui = lock["base_image"], lock["comfyui"]
    bound = f", as of {lock['python']['as_of']}" if lock["python"]["as_of"] else ", bound to no time"
    lines = [
        f"{answer['workflow']} v{answer['version']}  lock {answer['lock']}",
        f"  base image  {base['reference']}{'@' + base['digest'] if base['digest'] else ' (no digest)'}",
        f"  ComfyUI     {comfyui['version'] or '(no version)'}  {comfyui['commit']}",
        f"  Python      {lock['python']['version']}, {len(lock['python_packages'])} packages{bound}, torch {lock['torch']['version'] or 'none'}",
    ]
    for pack in lock["packs"]:
        exact = pack["commit"] or f"archive sha256:{pack['sha256']}"
        lines.append(f"  pack        {_plain(pack['key'])}  {_plain(pack['version'] or '-')}  {exact}  {len(pack['classes'])} class(es)")
    for model in lock["models"]:
        known = f"sha256:{model['sha256']}" if model["sha256"] else "hash not known"
        lines.append(f"  model       {_plain(model['directory'])}/{_plain(model['filename'])}  {known}")
    lines += [f"  {one['level']:<8}{one['code']}: {_plain(one['message'])} {_plain(one['suggestion'])}".rstrip() for one in answer["findings"]]
    return ["".join(c if c.isprintable() else "\ufffd" for c in line) for line in lines]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two locks, one sentence a difference."""
    old, new = document.normal(before), document.normal(after)
    lines = []
    for part in ("platform", "python", "base_image", "comfyui", "torch"):
        if old[part] != new[part]:
            told = (f"{name} {old[part][name] or 'none'} → {new[part][name] or 'none'}" for name in old[part] if old[part][name] != new[part][name])
            lines.append(f"{part}: {', '.join(told)}")
    lines += _listed(old, new, "packs", key=lambda one: one["key"], shown=lambda one: one["commit"] or one["version"])
    lines += _listed(old, new, "python_packages", key=lambda one: one["name"], shown=lambda one: one["version"] or one["url"])
    lines += _listed(old, new, "models", key=lambda one: f"{one['directory']}/{one['filename']}", shown=lambda one: one["sha256"][:12] or "hash not known")
    for part in ("classes", "constraints"):
        gone, came = set(old[part]) - set(new[part]), set(new[part]) - set(old[part])
        lines += [f"{part}: without {name}" for name in sorted(gone)] + [f"{part}: with {name}" for name in sorted(came)]
    return [_plain(line) for line in lines]


def _listed(old: Mapping[str, Any], new: Mapping[str, Any], part: str, *, key: Any, shown: Any) -> list[str]:
    before, after = ({key(one): one for one in lock[part]} for lock in (old, new))
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"{part}: without {name} {shown(before[name])}")
        elif name not in before:
            lines.append(f"{part}: with {name} {shown(after[name])}")
        elif before[name] != after[name]:
            told = f"{shown(before[name])} → {shown(after[name])}" if shown(before[name]) != shown(after[name]) else "other details"
            lines.append(f"{part}: {name} {told}")
    return lines


def _plain(text: str) -> str:
    """For a terminal: no control characters, bounded."""
    return "".join(c if c.isprintable() else "�" for c in text)[:400]
