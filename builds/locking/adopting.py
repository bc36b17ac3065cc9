"""Take over what a foreign lock says for one workflow: versions of packs, ComfyUI, pins of packages, facts of models.

Pure. A snapshot lists everything one machine had; the workflow's lock takes what the workflow needs, and says what
was left. Where several packs could bring a class and the file names exactly one of them, that one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builds.findings import WARNING, Finding, finding
from builds.locking.document import COMMIT
from builds.locking.formats.parts import Parts
from builds.locking.freeze import PROTECTED
from builds.locking.packs import INFO
from builds.locking.sources import Target, canonical

_NOT_PINNED = re.compile(r"nvidia-.*|cuda-.*|triton|pip|setuptools|wheel|uv")


@dataclass(frozen=True)
class Adopted:
    """The report and target to lock with, and what was made of the file."""

    report: dict[str, Any]
    target: Target
    findings: list[Finding] = field(default_factory=list)


def adopt(parts: Parts, *, report: Mapping[str, Any], target: Target, pins: bool = True, all_packs: bool = False) -> Adopted:
    """`report` (a dependency report as JSON) and `target` as the file wants them.

    With `pins`, packages of the file's freeze are held at its versions, except what belongs to its machine (CUDA, and
    torch builds with a local version). With `all_packs`, packs the workflow does not need come along.
    """
    found = list(parts.findings)
    packs = [dict(one) for one in report.get("packs") or ()]
    classes = [dict(one) for one in report.get("classes") or ()]
    used: set[int] = set()
    for one in packs:
        number = _match(one, parts.packs)
        if number is not None:
            used.add(number)
            one |= _taken(one, parts.packs[number])
    for one in classes:
        if one.get("status") == "ambiguous":
            _settle(one, parts.packs, packs, used, found)
    left = [entry for number, entry in enumerate(parts.packs) if number not in used]
    if all_packs:
        packs += [{"key": _key(entry), **entry, "classes": [], "why": "the imported file has it"} for entry in left]
    elif left:
        names = ", ".join(entry["registry_id"] or entry["repository"] for entry in left)
        found.append(finding(INFO, "packs_not_needed", f"In the file, but no node of this workflow needs them: {names[:600]}."))
    models = [_known(dict(one), parts.models, found) for one in report.get("models") or ()]
    wanted = {(one["directory"], one["filename"]) for one in parts.models}
    unused = sorted(f"{directory}/{filename}" for directory, filename in wanted - {(str(m.get("directory")), str(m.get("name"))) for m in models})
    if unused:
        found.append(finding(INFO, "models_not_needed", f"In the file, but no node of this workflow loads them: {', '.join(unused)[:600]}."))
    if parts.comfyui:
        target = replace(target, ref=parts.comfyui)
    if parts.python and ".".join(parts.python.split(".")[:2]) != target.python:
        message = f"The file is of Python {parts.python[:20]}; the image has {target.python}."
        found.append(finding(WARNING, "python_differs", message, "Set BUILD_PYTHON_VERSION and BUILD_BASE_IMAGE if it must be the same."))
    if pins:
        target = replace(target, constraints=(*target.constraints, *_held(parts.pins, target, found)))
    return Adopted({**report, "packs": packs, "classes": classes, "models": models}, target, found)


def _held(pins: Iterable[str], target: Target, found: list[Finding]) -> list[str]:
    """Pins that may bind another machine: those of the file, less its own platform's and what the settings hold already."""
    own = {re.split(r"[<>=!~ ;\[]", line, maxsplit=1)[0].lower() for line in target.constraints}
    held, dropped = [], []
    for line in sorted(set(pins)):
        name, _, version = line.partition("==")
        if _NOT_PINNED.fullmatch(name) or name in own or (PROTECTED.fullmatch(name) and "+" in version):
            dropped.append(line)
        else:
            held.append(line)
    if dropped:
        found.append(finding(INFO, "pins_of_the_machine", f"Left to the resolver, since they belong to the file's machine: {', '.join(dropped)[:600]}."))
    return held


def _settle(one: dict[str, Any], entries: list[dict[str, str]], packs: list[dict[str, Any]], used: set[int], found: list[Finding]) -> None:
    """Choose for an ambiguous class the one candidate that the file has."""
    fitting = [(candidate, number) for candidate in one.get("candidates") or () if (number := _match(candidate, entries)) is not None]
    if len({number for _, number in fitting}) != 1:
        return
    candidate, number = fitting[0]
    used.add(number)
    chosen = {name: str(candidate.get(name) or "") for name in ("key", "registry_id", "repository", "version")}
    chosen |= _taken(chosen, entries[number])
    one |= {"status": "resolved", "pack": chosen}
    listed = next((pack for pack in packs if pack["key"] == chosen["key"]), None)
    if listed is None:
        packs.append({**chosen, "classes": [one["class"]], "why": "the imported file has it"})
    else:
        listed |= {"version": chosen["version"], "classes": sorted({*listed["classes"], one["class"]})}
    found.append(finding(INFO, "class_settled", f"{str(one['class'])[:120]} comes from {chosen['key'][:200]}, the one candidate that the file has."))


def _match(pack: Mapping[str, Any], entries: list[dict[str, str]]) -> int | None:
    registry_id = str(pack.get("registry_id") or "").lower()
    repository = canonical(str(pack.get("repository") or "")).lower()
    for number, entry in enumerate(entries):
        if registry_id and entry["registry_id"].lower() == registry_id:
            return number
        if repository and entry["repository"].lower() == repository:
            return number
    return None


def _taken(pack: Mapping[str, Any], entry: Mapping[str, str]) -> dict[str, str]:
    """A commit is of the file's repository, which may be a fork of the one the lists know."""
    taken = {"version": entry["version"] or str(pack.get("version") or "")}
    if entry["repository"] and (COMMIT.fullmatch(entry["version"]) or not pack.get("repository")):
        taken["repository"] = entry["repository"]
    return taken


def _known(model: dict[str, Any], models: Iterable[Mapping[str, Any]], found: list[Finding]) -> dict[str, Any]:
    for one in models:
        if one["filename"] != model.get("name") or (model.get("directory") and one["directory"] != model["directory"]):
            continue
        if model.get("sha256") and one["sha256"] and model["sha256"] != one["sha256"]:
            message = f"The file knows {one['filename'][:120]} with another hash than the lists here; the file's is taken."
            found.append(finding(WARNING, "model_hash_differs", message, "Check which of both the workflow was made with."))
        model["directory"] = one["directory"]
        model["sha256"] = one["sha256"] or model.get("sha256") or ""
        if one["size_bytes"] is not None:
            model["size_bytes"] = one["size_bytes"]
        if one["urls"]:
            model["url"] = one["urls"][0]
    return model


def _key(entry: Mapping[str, str]) -> str:
    return f"cnr:{entry['registry_id']}" if entry["registry_id"] else entry["repository"]
