"""Known vulnerabilities of what is in an image, from a local copy of an OSV database. Pure but for reading that file.

Without a database there is no answer, and the report says so: an empty list would read as "none".
Format: https://ossf.github.io/osv-schema/ as one JSON file (a record or a list), a directory of them, or a zip such as the
`all.zip` that osv.dev gives for PyPI. Versions of PyPI packages are compared by PEP 440.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ECOSYSTEM = "PyPI"
MAX_RECORD = 5_000_000
NO_DATABASE = "No advisory database is configured, so nothing was looked up. Set BUILD_ADVISORIES to a copy of the OSV database (docs/builds.md)."


def report(packages: Mapping[str, str], *, database: str, uncovered: Iterable[str] = ()) -> dict[str, Any]:
    """{"scanner", "reason"} without a database, else {"scanner", "records", "packages", "found": [...], "unread", "not_covered"}."""
    if not database:
        return {"scanner": None, "reason": NO_DATABASE}
    path = Path(database)
    if not path.exists():
        return {"scanner": None, "reason": "The advisory database that BUILD_ADVISORIES names is not there, so nothing was looked up."}
    installed: dict[str, tuple[str, str]] = {canonicalize_name(name): (name, version) for name, version in packages.items()}
    found: list[dict[str, Any]] = []
    records = unread = 0
    for record in _records(path):
        if record is None:
            unread += 1
            continue
        records += 1
        if not record.get("withdrawn"):
            found += _hits(record, installed)
    if not records:
        return {"scanner": None, "reason": "The advisory database holds no record that could be read, so nothing was looked up.", "unread": unread}
    found.sort(key=lambda hit: (hit["package"], hit["id"]))
    return {
        "scanner": "osv-file",
        "records": records,
        "unread": unread,
        "packages": len(installed),
        "found": found[:1000],
        "not_covered": sorted(uncovered),
    }


def _hits(record: Mapping[str, Any], installed: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for affected in record.get("affected") or ():
        package = affected.get("package") or {}
        name = canonicalize_name(str(package.get("name", "")))
        if package.get("ecosystem") != ECOSYSTEM or name not in installed:
            continue
        shown, version = installed[name]
        if _affects(affected, version):
            yield {
                "id": str(record.get("id", ""))[:80],
                "aliases": [str(a)[:80] for a in (record.get("aliases") or ())][:10],
                "package": shown[:120],
                "version": version[:60],
                "summary": str(record.get("summary") or record.get("details") or "")[:300],
                "severity": [str(s.get("score", ""))[:120] for s in record.get("severity") or () if isinstance(s, dict)][:3],
                "fixed": _fixed(affected),
            }
            return


def _affects(affected: Mapping[str, Any], version: str) -> bool:
    if version in (affected.get("versions") or ()):
        return True
    try:
        ours = Version(version)
    except InvalidVersion:
        return False
    return any(_within(span.get("events") or (), ours) for span in affected.get("ranges") or () if span.get("type") in ("ECOSYSTEM", "SEMVER"))


def _within(events: Iterable[Mapping[str, Any]], ours: Version) -> bool:
    """OSV's evaluation: walk the events in version order; introduced opens, fixed closes, last_affected closes behind itself."""
    inside = False
    for kind, at in sorted(_points(events), key=lambda point: (point[1] is not None, point[1] or ours)):
        if kind == "introduced":
            inside = inside or at is None or ours >= at
        elif at is not None and (ours > at or (kind == "fixed" and ours == at)):
            inside = False
    return inside


def _points(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Version | None]]:
    for event in events:
        for kind in ("introduced", "fixed", "last_affected"):
            if kind in event:
                if str(event[kind]) == "0":
                    yield kind, None
                else:
                    try:
                        yield kind, Version(str(event[kind]))
                    except InvalidVersion:
                        continue


def _fixed(affected: Mapping[str, Any]) -> list[str]:
    return [str(e["fixed"])[:60] for span in affected.get("ranges") or () if span.get("type") != "GIT" for e in span.get("events") or () if "fixed" in e][:5]


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    """Every record; None for what cannot be read."""
    for data in _texts(path):
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            yield None
            continue
        for record in said if isinstance(said, list) else [said]:
            yield record if isinstance(record, dict) and isinstance(record.get("affected"), list) else None


def _texts(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            if file.stat().st_size <= MAX_RECORD:
                yield file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".json") and entry.file_size <= MAX_RECORD:
                    yield archive.read(entry)
    else:
        yield path.read_bytes()
