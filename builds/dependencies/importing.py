"""Keep the public lists: one transaction, in bulk; what the newest list of a kind no longer says is taken back.

Importing the same content again changes nothing. What a build saw and what people pinned stays,
whatever the lists say. A pack that the lists dropped stays too, without its classes: a pin or a lock may name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Model

from builds.dependencies import spelling
from builds.dependencies.lists import MODEL_LIST, NODE_MAP, PACK_LIST, STATS, ListedPack, Lists
from builds.models import KnownModel, NodeList, Pack, PackClass
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict

SOURCE = "public model list"
_BATCH = 2_000
_FIELDS = ("title", "author", "description", "list_id", "stars", "updated_at", "deprecated", "patterns")
Row = TypeVar("Row", bound=Model)


@dataclass
class Changes:
    """What an import changed, counted."""

    packs_new: int = 0
    packs_changed: int = 0
    classes_new: int = 0
    classes_gone: int = 0
    classes_changed: int = 0
    models_new: int = 0
    models_changed: int = 0
    models_gone: int = 0
    entries: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        return not any(value for name, value in vars(self).items() if isinstance(value, int))

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "changed": not self.nothing}


def keep(lists: Lists, *, source: str, actor: str, now: datetime) -> Changes:
    """Store what was read and tell what changed. Raises Conflict when another import got in between."""
    try:
        with transaction.atomic():
            return _keep(lists, source=source, actor=actor, now=now)
    except IntegrityError as error:
        raise Conflict(
            "node_lists_importing", "Another import of node lists ran at the same moment.", "Import again; what is there already is kept."
        ) from error


def _keep(lists: Lists, *, source: str, actor: str, now: datetime) -> Changes:
    changes = Changes(entries={kind: entries for kind, _, entries in lists.sources}, left_out=dict(lists.left_out))
    # One import at a time: the rows of the lists are the lock.
    list(NodeList.objects.select_for_update().order_by("id")[:1])
    ids = _packs(lists, changes, now)
    if lists.kinds & {NODE_MAP, PACK_LIST}:
        _claims(lists, ids, changes)
    if MODEL_LIST in lists.kinds:
        _models(lists, changes, now)
    for kind, sha256, entries in lists.sources:
        if kind != STATS:
            NodeList.objects.update_or_create(
                kind=kind,
                sha256=sha256,
                defaults={"imported_at": now, "imported_by": actor[:120], "source": source[:500], "entries": entries},
            )
    if not changes.nothing:
        audit.record(
            actor=actor,
            action="node_lists.import",
            object_type="node_list",
            object_id=lists.sources[0][1],
            after=changes.as_json(),
            reason=source[:500],
            now=now,
        )
    return changes


def _packs(lists: Lists, changes: Changes, now: datetime) -> dict[str, Any]:
    """Pack key → row id, for every pack of the lists."""
    known = {row.key: row for row in Pack.objects.all()}
    by_repository = {spelling.repository_key(row.repository): row for row in known.values() if row.repository}
    new: list[Pack] = []
    changed: list[Pack] = []
    ids: dict[str, Any] = {}
    for key, pack in lists.packs.items():
        row = known.get(key) or by_repository.get(key)
        if row is None:
            row = Pack(key=key[:300], repository=pack.repository, slug=spelling.name_of(pack.repository), seen_at=now)
            _fill(row, pack, lists.kinds)
            new.append(row)
        elif _fill(row, pack, lists.kinds):
            row.seen_at = now
            changed.append(row)
        ids[key] = row.pk
    _create(Pack, new)
    Pack.objects.bulk_update(changed, ["slug", "seen_at", *_FIELDS], batch_size=200)
    changes.packs_new, changes.packs_changed = len(new), len(changed)
    return ids


def _fill(row: Pack, pack: ListedPack, kinds: set[str]) -> bool:
    """Take over what these lists know; tell whether it is news."""
    fields: Sequence[str] = ()
    if PACK_LIST in kinds and (pack.title or pack.list_id):
        fields = ("title", "author", "description", "list_id", "deprecated")
        # Both lists name patterns; one alone must not take back what the other said.
        if pack.patterns or NODE_MAP in kinds:
            fields = (*fields, "patterns")
    elif NODE_MAP in kinds:
        fields = tuple(name for name in ("title", "author", "description", "patterns") if getattr(pack, name) and not getattr(row, name))
    if STATS in kinds and pack.stars is not None:
        fields = (*fields, "stars", "updated_at")
    slug = row.slug or spelling.name_of(row.repository)
    news = row.slug != slug
    row.slug = slug
    for name in fields:
        if getattr(row, name) != getattr(pack, name):
            setattr(row, name, getattr(pack, name))
            news = True
    return news


def _claims(lists: Lists, ids: dict[str, Any], changes: Changes) -> None:
    listed = PackClass.objects.filter(evidence=PackClass.Evidence.LISTED)
    before = {(row[1], row[2]): (row[0], row[3]) for row in listed.values_list("id", "pack_id", "class_name", "preferred").iterator(chunk_size=5_000)}
    whole = NODE_MAP in lists.kinds
    new: list[PackClass] = []
    flipped: dict[bool, list[int]] = {True: [], False: []}
    said = set()
    for (key, name), preferred in lists.claims.items():
        spot = (ids[key], name)
        said.add(spot)
        held = before.get(spot)
        if held is None:
            new.append(PackClass(pack_id=ids[key], class_name=name, preferred=preferred))
        elif held[1] != preferred and (whole or preferred):
            flipped[preferred].append(held[0])
    gone = [held[0] for spot, held in before.items() if spot not in said] if whole else []
    for at in range(0, len(gone), _BATCH):
        PackClass.objects.filter(id__in=gone[at : at + _BATCH]).delete()
    for value, rows in flipped.items():
        for at in range(0, len(rows), _BATCH):
            PackClass.objects.filter(id__in=rows[at : at + _BATCH]).update(preferred=value)
    _create(PackClass, new)
    changes.classes_new, changes.classes_gone, changes.classes_changed = len(new), len(gone), sum(map(len, flipped.values()))


def _models(lists: Lists, changes: Changes, now: datetime) -> None:
    before = {(row.filename, row.directory, row.url): row for row in KnownModel.objects.filter(url__gt="")}
    new: list[KnownModel] = []
    changed: list[KnownModel] = []
    for spot, model in lists.models.items():
        facts = {"listed_base": model.base, "listed_size": model.size}
        row = before.get(spot)
        if row is None:
            fields: dict[str, Any] = {"filename": model.filename, "directory": model.directory, "url": model.url, "family": model.family}
            new.append(KnownModel(**fields, header=facts, source=SOURCE, seen_at=now))
        elif row.source == SOURCE and (row.family != model.family or {**row.header, **facts} != row.header):
            row.family, row.header, row.seen_at = model.family, {**row.header, **facts}, now
            changed.append(row)
    gone = [row.pk for spot, row in before.items() if row.source == SOURCE and spot not in lists.models and not row.sha256]
    for at in range(0, len(gone), _BATCH):
        KnownModel.objects.filter(id__in=gone[at : at + _BATCH]).delete()
    _create(KnownModel, new)
    KnownModel.objects.bulk_update(changed, ["family", "header", "seen_at"], batch_size=200)
    changes.models_new, changes.models_changed, changes.models_gone = len(new), len(changed), len(gone)


def _create(model: type[Row], rows: Iterable[Row]) -> None:
    model._default_manager.bulk_create(list(rows), batch_size=_BATCH)
