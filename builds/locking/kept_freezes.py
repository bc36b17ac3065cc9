"""Freezes kept by their question: the same requirements as of the same time have one answer, so uv is asked once.

Only freezes that are bound to a time are kept; an index that tells no upload times may answer otherwise tomorrow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime
from pathlib import Path

from builds.locking import indexes, resolving
from builds.locking.resolving import Question, Resolved
from builds.locking.running import redacted
from builds.locking.sources import Sources


def resolve(question: Question, *, sources: Sources, fresh: bool = False) -> Resolved:
    """As `resolving.resolve`; `fresh` asks again."""
    kept = sources.cache / "freezes" / f"{_key(question, sources)}.json"
    if not fresh and (known := _read(kept)) is not None:
        return known
    resolved = resolving.resolve(question, sources=sources)
    if resolved.as_of is not None and not resolved.findings_of_today:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(dataclasses.asdict(resolved) | {"as_of": resolved.as_of.isoformat()}))
        part.replace(kept)
    return resolved


def _key(question: Question, sources: Sources) -> str:
    asked = [[(one.asker, one.where, one.text) for one in part] for part in (question.core, question.packs)]
    target = question.target
    wishes = [target.python, target.arch, target.torch_backend, sorted(target.constraints), sorted(target.left_out), sources.source_builds]
    where = [redacted(part) for part in indexes.arguments(sources)]
    said = json.dumps([resolving.RULES, asked, wishes, where, question.core_at.isoformat(), question.newest_at.isoformat()])
    return hashlib.sha256(said.encode()).hexdigest()


def _read(path: Path) -> Resolved | None:
    try:
        said = json.loads(path.read_text())
        return Resolved(**said | {"as_of": datetime.fromisoformat(said["as_of"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
