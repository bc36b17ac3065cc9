"""A person's word on where a node class comes from, kept with its reason, for one workflow or for all."""

from __future__ import annotations

import re
from datetime import datetime

from django.db import transaction

from builds.dependencies import spelling
from builds.models import Pack, Pin, Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid, NotFound

_STORABLE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")


def place(
    *, class_name: str, pack: str, reason: str, actor: str, now: datetime, workflow: Workflow | None = None, version: str = "", request_id: str = ""
) -> Pin:
    """Pin `class_name` to `pack` (a key, a registry id, or a repository in any spelling); replaces an earlier pin of the same reach."""
    class_name, reason = class_name.strip(), " ".join(reason.split())
    if not class_name or len(class_name) > 200 or not _STORABLE.fullmatch(class_name):
        raise Invalid("class_name_malformed", "The node class has no name that can be kept.", "Give the name as the graph writes it, at most 200 characters.")
    if not reason or len(reason) > 300 or not _STORABLE.fullmatch(reason):
        raise Invalid("reason_missing", "A pin needs its reason.", "Say why in at most 300 characters; the next person will ask.", details={"field": "reason"})
    fixed = spelling.version(version)
    if version.strip() and not fixed:
        raise Invalid(
            "version_malformed", "That is neither a commit nor a release.", "Give a full commit or a version such as 1.4.0.", details={"field": "version"}
        )
    with transaction.atomic():
        row = found(pack, now=now)
        before = Pin.objects.filter(class_name=class_name, workflow=workflow).select_related("pack").first()
        fields = {"pack": row, "version": fixed, "reason": reason, "author": actor[:120], "created_at": now}
        pin, _ = Pin.objects.update_or_create(class_name=class_name, workflow=workflow, defaults=fields)
        audit.record(
            actor=actor,
            action="pin.set",
            object_type="workflow" if workflow else "node_class",
            object_id=workflow.slug if workflow else class_name,
            before={"class": class_name, "pack": before.pack.key, "version": before.version} if before else {},
            after={"class": class_name, "pack": row.key, "version": fixed},
            reason=reason,
            request_id=request_id,
            now=now,
        )
    return pin


def remove(*, class_name: str, actor: str, reason: str, now: datetime, workflow: Workflow | None = None, request_id: str = "") -> None:
    """Take a pin back; raises NotFound when there is none."""
    with transaction.atomic():
        pin = Pin.objects.select_for_update(of=("self",)).filter(class_name=class_name, workflow=workflow).select_related("pack").first()
        if pin is None:
            raise NotFound("unknown_pin", f"{class_name[:80]} is not pinned here.", "Look at the pins of the workflow, and at those for all.")
        pin.delete()
        audit.record(
            actor=actor,
            action="pin.remove",
            object_type="workflow" if workflow else "node_class",
            object_id=workflow.slug if workflow else class_name,
            before={"class": class_name, "pack": pin.pack.key, "version": pin.version},
            reason=" ".join(reason.split())[:500],
            request_id=request_id,
            now=now,
        )


def found(pack: str, *, now: datetime) -> Pack:
    """The pack that a person means; one no list knows is kept under its own name."""
    said = pack.strip()
    key = said.lower()
    row = Pack.objects.filter(key__in=[said, key]).first()
    address = spelling.repository(said)
    if row is None and address:
        row = Pack.objects.filter(key=spelling.repository_key(address)).first()
        if row is None:
            row = Pack.objects.create(key=spelling.repository_key(address), repository=address, slug=spelling.name_of(address), seen_at=now)
    if row is None:
        registered = spelling.registry_id(said.removeprefix("cnr:"))
        if not registered:
            raise Invalid("pack_malformed", f"{said[:80]!r} names no pack.", "Give a registry id, or the address of a repository.", details={"field": "pack"})
        row = Pack.objects.filter(registry_id=registered).first()
        alike = [] if row else list(Pack.objects.filter(slug=spelling.slug(registered))[:3])
        if len(alike) > 1:
            names = ", ".join(one.key for one in alike)
            raise Invalid(
                "pack_ambiguous", f"Several packs are called {registered}: {names}.", "Give the address of its repository.", details={"field": "pack"}
            )
        row = row or (alike[0] if alike else Pack.objects.create(key=f"cnr:{registered}", registry_id=registered, slug=spelling.slug(registered), seen_at=now))
    return row
