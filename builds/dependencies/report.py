"""What a graph needs, said in one document: node classes with their packs, packs with versions, models with their facts.

The shape is fixed (`Report.as_json`); the command, the operators' API, the pages and the lock all read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CORE, RESOLVED, AMBIGUOUS, MISSING, UI_ONLY, PINNED = "core", "resolved", "ambiguous", "missing", "ui_only", "pinned"
KNOWN, UNKNOWN = "known", "unknown"
STATUSES = (CORE, RESOLVED, AMBIGUOUS, MISSING, UI_ONLY, PINNED)


@dataclass(frozen=True)
class PackRef:
    """A pack as others name it. `version` is a commit, a registry version, or empty where the lock decides."""

    key: str
    registry_id: str = ""
    repository: str = ""
    version: str = ""
    title: str = ""

    def as_json(self) -> dict[str, str]:
        return {"key": self.key, "registry_id": self.registry_id, "repository": self.repository, "version": self.version}


@dataclass(frozen=True)
class Evidence:
    """One reason for a pack. `weight` is what it adds to the score; below zero it speaks against."""

    kind: str
    weight: int
    sentence: str


@dataclass(frozen=True)
class Candidate:
    """A pack that may bring a class, with every reason."""

    pack: PackRef
    evidence: tuple[Evidence, ...]

    @property
    def score(self) -> int:
        return sum(one.weight for one in self.evidence)

    def has(self, kind: str) -> bool:
        return any(one.kind == kind for one in self.evidence)

    def as_json(self) -> dict[str, Any]:
        return {**self.pack.as_json(), "title": self.pack.title, "score": self.score, "evidence": [one.sentence for one in self.evidence]}


@dataclass(frozen=True)
class ClassUse:
    """A node class of the graph. `asleep`: only muted or bypassed nodes have it, so it is not needed to run."""

    name: str
    nodes: tuple[str, ...]
    status: str
    pack: PackRef | None = None
    candidates: tuple[Candidate, ...] = ()
    why: str = ""
    asleep: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "nodes": list(self.nodes),
            "status": self.status,
            "pack": self.pack.as_json() if self.pack else None,
            "candidates": [one.as_json() for one in self.candidates],
            "why": self.why,
            "asleep": self.asleep,
        }


@dataclass(frozen=True)
class PackUse:
    """A pack the graph needs, and for what."""

    pack: PackRef
    classes: tuple[str, ...]
    why: str

    def as_json(self) -> dict[str, Any]:
        return {**self.pack.as_json(), "title": self.pack.title, "classes": list(self.classes), "why": self.why}


@dataclass(frozen=True)
class ModelSource:
    """One place that knows a model file; `measured` when its header was read."""

    directory: str
    url: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    family: str = ""
    licence: str = ""
    precision: str = ""
    kind: str = ""
    size_about: str = ""
    source: str = ""
    measured: bool = False
    filename: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "url": self.url,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "size_about": self.size_about,
            "family": self.family,
            "licence": self.licence,
            "source": self.source,
        }


@dataclass(frozen=True)
class ModelUse:
    """A model file the graph loads. `status`: known has one place to get it, ambiguous several, unknown none;
    `asleep`: only muted or bypassed nodes load it."""

    name: str
    directory: str
    node: str
    input: str
    status: str
    class_type: str = ""
    type: str = ""
    url: str = ""
    size_bytes: int | None = None
    size_about: str = ""
    sha256: str = ""
    licence: str = ""
    family: str = ""
    precision: str = ""
    candidates: tuple[ModelSource, ...] = ()
    unknown: tuple[str, ...] = ()
    fix: str = ""
    asleep: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "directory": self.directory,
            "type": self.type,
            "node": self.node,
            "class": self.class_type,
            "input": self.input,
            "url": self.url,
            "size_bytes": self.size_bytes,
            "size_about": self.size_about,
            "sha256": self.sha256,
            "licence": self.licence,
            "family": self.family,
            "precision": self.precision,
            "status": self.status,
            "candidates": [one.as_json() for one in self.candidates],
            "unknown": list(self.unknown),
            "fix": self.fix,
            "asleep": self.asleep,
        }


@dataclass(frozen=True)
class Report:
    """Everything a graph needs, and what is wrong with it."""

    comfyui: Mapping[str, Any]
    classes: tuple[ClassUse, ...] = ()
    packs: tuple[PackUse, ...] = ()
    models: tuple[ModelUse, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def of_status(self, *statuses: str) -> list[ClassUse]:
        """The classes in one of these states, those that are needed to run first."""
        return sorted((one for one in self.classes if one.status in statuses), key=lambda one: one.asleep)

    @property
    def complete(self) -> bool:
        """Whether every class that runs has one pack, and every model one source."""
        open_classes = any(one.status in (AMBIGUOUS, MISSING) and not one.asleep for one in self.classes)
        return not open_classes and all(one.status == KNOWN for one in self.models if not one.asleep) and not any(f["level"] == "error" for f in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "comfyui": dict(self.comfyui),
            "complete": self.complete,
            "counts": dict(self.counts),
            "classes": [one.as_json() for one in self.classes],
            "packs": [one.as_json() for one in self.packs],
            "models": [one.as_json() for one in self.models],
            "findings": [dict(one) for one in self.findings],
        }
