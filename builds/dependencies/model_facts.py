"""What people and file headers say of a model file: where it can be had, what it is, under which licence."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.db import transaction

from builds.dependencies import folders, spelling
from builds.dependencies.families import TITLES
from builds.dependencies.headers import Header
from builds.dependencies.model_needs import web_address
from builds.models import KnownModel
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[A-Za-z0-9_-]{1,120}")
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff/\\]{1,300}")


def remember(
    *,
    filename: str,
    directory: str,
    actor: str,
    now: datetime,
    url: str = "",
    sha256: str = "",
    size_bytes: int | None = None,
    family: str = "",
    licence: str = "",
    header: Header | None = None,
    source: str = "",
    request_id: str = "",
) -> KnownModel:
    """Keep facts about `directory/filename`; what is left empty keeps what was known of the same file and address."""
    name, folder, digest = spelling.basename(filename), folders.canonical(directory), sha256.strip().lower()
    address = web_address(url.strip())
    if not _NAME.fullmatch(name) or spelling.unsafe_path(name):
        raise _refused("filename", "The file has no name that can be kept.", "Give the file's own name, without folders.")
    if not _FOLDER.fullmatch(folder):
        raise _refused("directory", "That is no folder under models/.", "Give one such as checkpoints or loras.")
    if url.strip() and not address:
        raise _refused("url", "The address cannot be used.", "Give an http(s) address without credentials, at most 1,000 characters.")
    if digest and not _SHA256.fullmatch(digest):
        raise _refused("sha256", "That is no SHA-256.", "Give 64 hexadecimal digits.")
    if family and family not in TITLES:
        raise _refused("family", f"No family is called {family[:40]}.", f"Known are {', '.join(sorted(TITLES))}.")
    facts: dict[str, Any] = {
        "sha256": digest,
        "size_bytes": size_bytes if size_bytes is not None else header.size_bytes if header else None,
        "family": family or (header.family if header else ""),
        "licence": " ".join(licence.split())[:120] or (header.licence if header else ""),
    }
    with transaction.atomic():
        row, _ = KnownModel.objects.select_for_update().get_or_create(
            filename=name, directory=folder, url=address, defaults={"source": (source or actor)[:300], "seen_at": now}
        )
        before = {field: getattr(row, field) for field in facts}
        for field, value in facts.items():
            if value not in ("", None):
                setattr(row, field, value)
        if header:
            row.header = {**row.header, **header.as_json()}
        row.seen_at = now
        row.source = (source or actor)[:300]
        row.save()
        after = {field: getattr(row, field) for field in facts}
        if before != after or header:
            audit.record(
                actor=actor,
                action="model.describe",
                object_type="known_model",
                object_id=f"{folder}/{name}",
                before=before,
                after={**after, "url": address},
                request_id=request_id,
                now=now,
            )
    return row


def _refused(field: str, message: str, suggestion: str) -> Invalid:
    return Invalid("model_facts_malformed", message, suggestion, details={"field": field})
