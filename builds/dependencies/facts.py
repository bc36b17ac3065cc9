"""Load what is known about one graph's classes and models: a handful of queries, whatever the size of the lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from django.db.models import Q

from builds.dependencies import kinship, patterns, spelling
from builds.dependencies.families import listed
from builds.dependencies.known import Claim, Facts, PackFact, PinFact, Target, is_core_module, pack_folder
from builds.dependencies.needs import Needs
from builds.dependencies.report import ModelSource
from builds.models import KnownModel, NodeLibrary, NodeList, Pack, PackClass, Pin, Workflow
from builds.nodespecs import info_of

MAX_ASKED = 2_000
MAX_PATTERN_PACKS = 2_000
_CHUNK = 800
_FIELDS = ("id", "key", "registry_id", "repository", "title", "stars", "updated_at", "deprecated", "slug", "list_id")

_patterns: dict[tuple[Any, ...], list[tuple[str, re.Pattern[str]]]] = {}
_kin: dict[tuple[Any, ...], dict[str, Counter[str]]] = {}
_lock = Lock()


def load(needs: Needs, *, library: Any, workflow: Workflow | None = None) -> Facts:
    """The facts for `needs`; `library` is a NodeLibrary, an object_info, or None."""
    info = info_of(library) or {}
    named = [name for name, need in needs.classes.items() if not need.ui_only][:MAX_ASKED]
    core = {name for name in named if name in info and is_core_module(info[name])}
    open_names = [name for name in named if name not in core]
    lists = tuple(NodeList.objects.order_by("kind", "-imported_at", "-id").values("kind", "sha256", "entries", "imported_at"))
    packs: dict[str, PackFact] = {}
    keys: dict[Any, str] = {}
    claims: dict[str, list[Claim]] = {}
    elsewhere: dict[str, str] = {}
    pins: dict[str, PinFact] = {}
    if open_names:
        _claimed(open_names, packs, keys, claims)
        _hinted(needs, packs, keys)
        _by_pattern(open_names, lists, packs, keys, claims)
        _by_kinship([name for name in open_names if name not in claims], lists, packs, keys, claims)
        _installed(open_names, info, packs, keys, claims)
        pins = _pins(open_names, workflow, packs, keys)
        for name in open_names:
            if any(packs[one.pack].is_core for one in claims.get(name, ())):
                elsewhere[name] = "the public node list"
        elsewhere |= _core_of_others([name for name in open_names if name not in elsewhere and name not in info], library)
    return Facts(
        target=_target(library, info),
        core=frozenset(core),
        present=frozenset(name for name in named if name in info),
        core_elsewhere=elsewhere,
        packs=packs,
        claims={name: tuple(found) for name, found in claims.items()},
        pins=pins,
        models=known_models(needs),
        lists=_newest(lists),
    )


def _target(library: Any, info: Mapping[str, Any]) -> Target:
    if not info:
        return Target()
    name = str(getattr(library, "name", "") or "the given object_info")
    return Target(name, str(getattr(library, "comfyui_version", "")), str(getattr(library, "sha256", "")), len(info))


def _newest(lists: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found: dict[str, Mapping[str, Any]] = {}
    for one in lists:
        found.setdefault(one["kind"], {**one, "imported_at": one["imported_at"].isoformat()})
    return tuple(found.values())


def _fact(row: Mapping[str, Any]) -> PackFact:
    updated = row["updated_at"].isoformat() if row["updated_at"] else ""
    return PackFact(
        row["key"], row["registry_id"], row["repository"], row["title"], row["stars"], updated, row["deprecated"], row["slug"], row["list_id"]
    )  # fmt: skip


def _keep(rows: Iterable[Mapping[str, Any]], packs: dict[str, PackFact], keys: dict[Any, str]) -> None:
    for row in rows:
        packs.setdefault(row["key"], _fact(row))
        keys[row["id"]] = row["key"]


def _chunks(values: list[str]) -> Iterable[list[str]]:
    for at in range(0, len(values), _CHUNK):
        yield values[at : at + _CHUNK]


def _claimed(names: list[str], packs: dict[str, PackFact], keys: dict[Any, str], claims: dict[str, list[Claim]]) -> None:
    found: list[Mapping[str, Any]] = []
    for chunk in _chunks(names):
        found += PackClass.objects.filter(class_name__in=chunk).values("class_name", "evidence", "preferred", "pack_id")
    for chunk in _chunks(list({row["pack_id"] for row in found})):
        _keep(Pack.objects.filter(id__in=chunk).values(*_FIELDS), packs, keys)
    for row in found:
        claims.setdefault(row["class_name"], []).append(Claim(keys[row["pack_id"]], row["evidence"], row["preferred"]))


def _hinted(needs: Needs, packs: dict[str, PackFact], keys: dict[Any, str]) -> None:
    """The packs that the graph names, by id or address."""
    hints = {hint for need in needs.classes.values() for hint in need.hints if hint.names_pack}
    ids = [hint.registry_id for hint in hints if hint.registry_id][:MAX_ASKED]
    slugs = [spelling.slug(one) for one in ids]
    repositories = [spelling.repository_key(hint.repository) for hint in hints if hint.repository][:MAX_ASKED]
    if hints:
        wanted = Q(registry_id__in=ids) | Q(slug__in=slugs) | Q(list_id__in=ids) | Q(key__in=repositories)
        _keep(Pack.objects.filter(wanted).values(*_FIELDS), packs, keys)


def _by_pattern(
    names: list[str], lists: tuple[Mapping[str, Any], ...], packs: dict[str, PackFact], keys: dict[Any, str], claims: dict[str, list[Claim]]
) -> None:
    fitting: dict[str, list[str]] = {}
    for key, pattern in _known_patterns(lists):
        for name in names:
            if patterns.fits(pattern, name) and not any(one.pack == key for one in claims.get(name, ())):
                fitting.setdefault(key, []).append(name)
    if fitting:
        _keep(Pack.objects.filter(key__in=[key for key in fitting if key not in packs]).values(*_FIELDS), packs, keys)
    for key, found in fitting.items():
        for name in found:
            claims.setdefault(name, []).append(Claim(key, "pattern"))


def _known_patterns(lists: tuple[Mapping[str, Any], ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Pack key and pattern, read once for each state of the imported lists."""
    stamp = tuple((one["kind"], one["sha256"]) for one in lists)
    if stamp not in _patterns:
        rows = Pack.objects.exclude(patterns=[]).values_list("key", "patterns")[:MAX_PATTERN_PACKS]
        found = [(key, ready) for key, said in rows for one in (said if isinstance(said, list) else ()) if (ready := patterns.compiled(one)) is not None]
        with _lock:
            _patterns.clear()
            _patterns[stamp] = found
    return _patterns[stamp]


def _by_kinship(
    names: list[str], lists: tuple[Mapping[str, Any], ...], packs: dict[str, PackFact], keys: dict[Any, str], claims: dict[str, list[Claim]]
) -> None:
    """Classes that no list names, by the way their names begin."""
    if not names or not lists:
        return
    stamp = tuple((one["kind"], one["sha256"]) for one in lists)
    if stamp not in _kin:
        rows = PackClass.objects.exclude(pack__key__in=spelling.CORE_REPOSITORIES).values_list("class_name", "pack__key")
        table = kinship.index(rows.iterator(chunk_size=5_000))
        with _lock:
            _kin.clear()
            _kin[stamp] = table
    found = {name: pack for name in names if (pack := kinship.likely(name, _kin[stamp]))}
    missing = {pack for pack in found.values() if pack not in packs}
    if missing:
        _keep(Pack.objects.filter(key__in=missing).values(*_FIELDS), packs, keys)
    for name, pack in found.items():
        if pack in packs:
            claims.setdefault(name, []).append(Claim(pack, "kin"))


def _installed(names: list[str], info: Mapping[str, Any], packs: dict[str, PackFact], keys: dict[Any, str], claims: dict[str, list[Claim]]) -> None:
    """Classes that the target has from a folder of its custom_nodes."""
    folders = {name: folder for name in names if (folder := pack_folder(info.get(name)))}
    if not folders:
        return
    slugs = {name: spelling.slug(folder) for name, folder in folders.items()}
    _keep(Pack.objects.filter(Q(slug__in=set(slugs.values())) | Q(list_id__in=set(folders.values()))).values(*_FIELDS), packs, keys)
    by_name: dict[str, list[PackFact]] = {}
    for fact in packs.values():
        for known in {fact.slug, spelling.slug(fact.list_id)} - {""}:
            by_name.setdefault(known, []).append(fact)
    for name, slug in slugs.items():
        alike = list(by_name.get(slug, ()))
        claiming = {one.pack for one in claims.get(name, ())}
        alike.sort(key=lambda fact: (fact.key not in claiming, -(fact.stars or 0), fact.key))
        if not alike:
            key = f"folder:{folders[name]}"
            packs.setdefault(key, PackFact(key, title=folders[name], slug=slug))
            alike = [packs[key]]
        claims.setdefault(name, []).append(Claim(alike[0].key, "installed"))


def _pins(names: list[str], workflow: Workflow | None, packs: dict[str, PackFact], keys: dict[Any, str]) -> dict[str, PinFact]:
    """Each class's pin; one of this workflow goes before one for all."""
    scope = Q(workflow__isnull=True) if workflow is None else Q(workflow__isnull=True) | Q(workflow=workflow)
    rows: list[Mapping[str, Any]] = []
    for chunk in _chunks(names):
        rows += Pin.objects.filter(scope, class_name__in=chunk).values("class_name", "workflow_id", "pack_id", "version", "reason", "author")
    if rows:
        _keep(Pack.objects.filter(id__in={row["pack_id"] for row in rows} - set(keys)).values(*_FIELDS), packs, keys)
    found: dict[str, PinFact] = {}
    for row in sorted(rows, key=lambda one: one["workflow_id"] is not None):
        found[row["class_name"]] = PinFact(keys[row["pack_id"]], row["version"], row["reason"], row["author"], row["workflow_id"] is None)
    return found


def _core_of_others(names: list[str], library: Any) -> dict[str, str]:
    """Which of `names` another imported ComfyUI has as its own classes."""
    found: dict[str, str] = {}
    if not names:
        return found
    for row in NodeLibrary.objects.exclude(sha256=str(getattr(library, "sha256", ""))).order_by("-created_at").values("name", "sha256")[:8]:
        core = _core_names(row["sha256"])
        for name in names:
            if name in core:
                found.setdefault(name, row["name"])
    return found


_cores: dict[str, frozenset[str]] = {}


def _core_names(sha256: str) -> frozenset[str]:
    """The core classes of a stored library, kept by content."""
    if sha256 not in _cores:
        table = NodeLibrary.objects.filter(sha256=sha256).values_list("object_info", flat=True).first() or {}
        said = any("python_module" in entry for entry in table.values() if isinstance(entry, Mapping))
        names = frozenset(name for name, entry in table.items() if said and is_core_module(entry))
        with _lock:
            if len(_cores) >= 16:
                _cores.clear()
            _cores[sha256] = names
    return _cores[sha256]


def known_models(needs: Needs) -> dict[str, tuple[ModelSource, ...]]:
    """Known files by their own name in small letters; names without an ending also find those with one."""
    names = {spelling.basename(one.name) for one in needs.models}
    bare = {spelling.basename(one.name) for one in needs.models if one.any_suffix}
    wanted = names | {f"{name}{suffix}" for name in bare for suffix in (".safetensors", ".pt", ".pth", ".bin", ".sft")}
    found: dict[str, list[ModelSource]] = {}
    for chunk in _chunks(sorted(wanted)):
        for row in KnownModel.objects.filter(filename__in=chunk).order_by("id"):
            found.setdefault(row.filename.lower(), []).append(source_of(row))
    return {name: tuple(rows[:20]) for name, rows in found.items()}


def source_of(row: KnownModel) -> ModelSource:
    """A stored model file as the resolver sees it; what its header says goes before what a list says."""
    header = row.header if isinstance(row.header, dict) else {}
    return ModelSource(
        row.directory, row.url, row.sha256, row.size_bytes, str(header.get("family") or "") or row.family or listed(header.get("listed_base")), row.licence,
        str(header.get("precision") or ""), str(header.get("kind") or ""), str(header.get("listed_size") or ""), row.source,
        bool(header.get("tensors")),
        row.filename,
    )  # fmt: skip
