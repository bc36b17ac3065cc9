"""Name a version the short way, or a file, and get its content.

slug                the head of its main branch
slug@v3, slug@3     a version by number; slug@deadbeef by the start of its hash
slug@branch         the head of a branch
slug:production     what a channel points at
path/to/file.json   a file: canvas or API format, or a picture or archive that holds one
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builds import graphs, heads, importing, queries
from builds.comparing import Content
from builds.models import Version, VersionLock, Workflow
from controlplane.kernel.errors import NotFound

_REVISION = re.compile(r"(?P<slug>[a-z0-9][a-z0-9-]{0,59})(?:@(?P<at>[a-z0-9][a-z0-9._-]{0,63})|:(?P<channel>[a-z]{1,12}))?")
_AT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,69}")


@dataclass(frozen=True)
class Revision:
    """A content and what people call it; `version` is None for a file."""

    label: str
    content: Content
    version: Version | None = None


def pair(a: str, b: str, *, library: Any = None) -> tuple[Revision, Revision]:
    """Two revisions to compare. A file beside a version is read as if it were imported on it: with its limits, and its inputs as far as they fit."""
    found = [None if _is_file(name) else version_named(name) for name in (a, b)]
    before, after = (_of_version(one) if one else None for one in found)
    read = [one or _of_file(name, library=library, beside=other) for one, name, other in ((before, a, after), (after, b, before))]
    return read[0], read[1]


def version_named(text: str) -> Version:
    """The version `text` names; raises NotFound or Gone."""
    named = _REVISION.fullmatch(text)
    if named is None:
        raise NotFound(
            "unknown_revision", f"{text[:120]!r} is neither a file nor a version.", "Write slug, slug@v3, slug@branch, slug:production, or the path of a file."
        )
    workflow = queries.workflow(named["slug"])
    if named["channel"]:
        return queries.version(workflow, named["channel"])
    return at(workflow, named["at"] or heads.MAIN)


def at(workflow: Workflow, text: str) -> Version:
    """A version of `workflow` by branch, number, channel or the start of its hash; raises NotFound."""
    # No branch is called like a number.
    line = None if text.removeprefix("v").isdecimal() else heads.named(workflow, text)
    if line is not None:
        return line.head
    if not _AT.fullmatch(text):
        raise NotFound("unknown_version", f"{workflow.slug} has no version {text[:70]!r}.", "Name a number, a branch, a channel, or the start of a hash.")
    if text == heads.MAIN:
        return heads.branch(workflow).head
    return queries.version(workflow, text)


def content_of(version: Version) -> Content:
    """What the version is, with the newest lock made for it."""
    lock = VersionLock.objects.filter(version=version).select_related("lock").first()
    return Content.of(version, resolved=lock.lock.document if lock else None)


def _of_version(version: Version) -> Revision:
    return Revision(f"{version.workflow.slug} v{version.number}", content_of(version), version)


def _of_file(name: str, *, library: Any, beside: Revision | None) -> Revision:
    seen = importing.examine(document=graphs.load(_read(name)), library=library, parent=beside.version if beside else None)
    content = Content(graph=seen.graph, inputs=seen.exposed, ui_graph=seen.canvas)
    if beside is not None:
        content = replace(content, timeout_s=beside.content.timeout_s, stall_s=beside.content.stall_s, lock=beside.content.lock)
    return Revision(Path(name).name[:120] or name, content)


def _is_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().endswith((".json", ".png", ".zip")) or Path(name[:255]).is_file()


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as stream:
            return stream.read(graphs.MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_unreadable", f"Cannot read {name[:200]}: {reason}.", "Check the path.") from error
