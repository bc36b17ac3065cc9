"""Node libraries: the object_info of a ComfyUI of a given make, one of them current.

The big table is read from the database once per content and process; asking which library is
current costs one small query.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from django.db import transaction

from builds import versions
from builds.models import NodeLibrary, Version
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid, NotFound, TooLarge

MAX_BYTES = 64_000_000
MAX_CLASSES = 20_000
_KEPT = 8

_kept: dict[str, dict[str, Any]] = {}
_lock = Lock()


def current() -> NodeLibrary | None:
    """The library new graphs are judged against; None before any was imported."""
    row = NodeLibrary.objects.filter(current=True).defer("object_info").first()
    return _with_table(row) if row else None


def named(name: str) -> NodeLibrary:
    """The library called `name`."""
    row = NodeLibrary.objects.filter(name=name).defer("object_info").first()
    if row is None:
        raise NotFound("unknown_library", f"There is no node library called {name[:80]}.", "Import one: manage.py import_object_info.")
    return _with_table(row)


def _with_table(row: NodeLibrary) -> NodeLibrary:
    """The row with its class table, which is kept by content; do not change it."""
    table = _kept.get(row.sha256)
    if table is None:
        # Hash and table are read together, so that an import in between cannot mix them up.
        sha256, table = NodeLibrary.objects.values_list("sha256", "object_info").get(pk=row.pk)
        with _lock:
            if len(_kept) >= _KEPT:
                _kept.clear()
            _kept[sha256] = table
    row.object_info = table
    return row


def read_bytes(data: bytes) -> dict[str, Any]:
    """The class table in the bytes of an object_info answer, gzipped or not."""
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise Invalid("object_info_unreadable", "The gzip file is damaged.", "Fetch it again from /object_info.") from error
    if len(data) > MAX_BYTES:
        raise TooLarge("object_info_too_large", f"The file is larger than {MAX_BYTES:,} bytes.", "Fetch it from one ComfyUI only.")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid("object_info_unreadable", "The file is not JSON.", "Save the answer of GET /object_info.") from error
    return check(document)


def check(document: Any) -> dict[str, Any]:
    """`document` when it is a class table; raises Invalid otherwise."""
    looks_right = isinstance(document, Mapping) and document and all(isinstance(entry, Mapping) and "input" in entry for entry in document.values())
    if not looks_right:
        raise Invalid(
            "not_object_info", "This is not the answer of a ComfyUI's /object_info.", "Save the answer of GET /object_info, without a node name behind it."
        )
    if len(document) > MAX_CLASSES:
        raise TooLarge(
            "object_info_too_large", f"It names {len(document):,} node classes; at most {MAX_CLASSES:,} are accepted.", "Fetch it from one ComfyUI only."
        )
    return dict(document)


def store(
    *, name: str, document: Mapping[str, Any], source: str = "", comfyui_version: str = "", current: bool = False, actor: str = "system", now: datetime
) -> NodeLibrary:
    """Keep a class table under `name`, replacing what was there; with `current`, judge every version against it."""
    table = _ordered(check(_clean(document)))
    sha256 = hashlib.sha256(versions.canonical_json(table)).hexdigest()
    with transaction.atomic():
        before = NodeLibrary.objects.select_for_update().filter(name=name).defer("object_info").first()
        unchanged = before is not None and before.sha256 == sha256 and (before.current or not current)
        if before is not None and unchanged:
            return _with_table(before)
        if current:
            NodeLibrary.objects.filter(current=True).exclude(name=name).update(current=False)
        fields: dict[str, Any] = {"comfyui_version": comfyui_version[:40], "sha256": sha256, "object_info": table, "source": source[:300]}
        if current:
            fields["current"] = True
        library, _ = NodeLibrary.objects.update_or_create(name=name[:120], defaults=fields, create_defaults={**fields, "created_at": now})
        audit.record(
            actor=actor,
            action="library.import",
            object_type="node_library",
            object_id=name,
            before={"sha256": before.sha256} if before else {},
            after={"sha256": sha256, "classes": len(table), "current": library.current},
            now=now,
        )
    if library.current:
        recheck_versions(library=library)
    return library


def recheck_versions(*, library: NodeLibrary) -> int:
    """Judge every version of every living workflow against `library`; tells how many became or ceased to be runnable."""
    changed = 0
    for version in Version.objects.filter(workflow__archived_at=None).iterator(chunk_size=50):
        before = version.runnable
        changed += versions.recheck(version=version, library=library).runnable != before
    return changed


def _ordered(value: Any) -> Any:
    """Every group of inputs with its order written beside it: PostgreSQL keeps no order of keys, and saved values have no names but their place."""
    if isinstance(value, list):
        return [_ordered(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    said = {key: _ordered(inner) for key, inner in value.items()}
    groups = said.get("input", said.get("inputs"))
    if isinstance(groups, Mapping):
        order = {section: list(group) for section, group in groups.items() if section in ("required", "optional") and isinstance(group, Mapping)}
        if order and "input_order" not in said:
            said["input_order"] = order
    return said


def _clean(value: Any) -> Any:
    """Without NUL characters and lone surrogates, which PostgreSQL cannot keep."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
