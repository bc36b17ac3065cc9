"""From needs and facts to the report: every class to its pack, in a fixed order of trust.

Pure. A person's pin comes first; then ComfyUI itself, since the server lets no pack replace a core
class; then the pack id in the graph, then ranked candidates. Where evidence does not decide, the class
is ambiguous and its candidates are shown; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builds.dependencies import modeling, ranking, spelling, telling
from builds.dependencies.known import Facts, PackFact
from builds.dependencies.needs import ClassNeed, Hint, Needs
from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, PINNED, RESOLVED, UI_ONLY, Candidate, ClassUse, Evidence, PackRef, PackUse, Report


def resolve(needs: Needs, facts: Facts) -> Report:
    """The report on one graph."""
    linked = _linked(needs, facts)
    open_classes = [name for name, need in needs.classes.items() if not need.ui_only and name not in facts.core]
    named: dict[str, int] = {}
    for need in needs.classes.values():
        for hint, count in need.hints.items():
            if hint in linked:
                named[linked[hint].key] = named.get(linked[hint].key, 0) + count
    around = ranking.surroundings(open_classes, facts)
    uses = tuple(_class(need, facts, linked, around, named) for need in needs.classes.values())
    packs = _packs(uses)
    by_class = {one.name: one for one in uses}
    uses = tuple(_versioned(one, packs) for one in by_class.values())
    models, model_findings = modeling.resolve(needs, facts)
    findings = (*telling.findings(needs, facts, uses, _all_hints(needs)), *model_findings)
    counts: dict[str, int] = {"nodes": sum(need.count for need in needs.classes.values()), "packs": len(packs), "models": sum(not one.asleep for one in models)}
    for use in uses:
        counts[use.status] = counts.get(use.status, 0) + 1
    comfyui: dict[str, Any] = {
        "target": facts.target.name,
        "version": facts.target.version,
        "sha256": facts.target.sha256,
        "classes": facts.target.classes,
        "saved_with": telling.newest(needs.core_versions),
        "lists": [dict(one) for one in facts.lists],
    }
    ordered = sorted(findings, key=lambda one: (one["level"] != "error", one["level"] == "info"))
    return Report(comfyui, uses, tuple(packs.values()), models, tuple(ordered[: telling.MAX_FINDINGS]), counts)


def _class(need: ClassNeed, facts: Facts, linked: Mapping[Hint, PackFact], around: ranking.Surroundings, named: Mapping[str, int]) -> ClassUse:
    nodes, asleep = tuple(need.nodes), need.asleep
    if need.ui_only:
        return ClassUse(need.name, nodes, UI_ONLY, why="It lives on the canvas only; the server never sees it.", asleep=asleep)
    if need.name in facts.core:
        return ClassUse(need.name, nodes, CORE, why=f"Part of {facts.target.name or 'ComfyUI'} itself.", asleep=asleep)
    pin = facts.pins.get(need.name)
    elsewhere_named = {one.pack: named[one.pack] - _own(need, one.pack, linked) for one in facts.claims.get(need.name, ()) if one.pack in named}
    candidates = ranking.rank(need.name, facts=facts, around=around, named=elsewhere_named)
    if pin is not None and pin.pack in facts.packs:
        ref = facts.packs[pin.pack].ref(pin.version)
        scope = "for all workflows" if pin.everywhere else "for this workflow"
        return ClassUse(need.name, nodes, PINNED, ref, candidates, f"Pinned by {pin.author} {scope}: {pin.reason}", asleep)
    elsewhere = facts.core_elsewhere.get(need.name)
    if elsewhere:
        return ClassUse(need.name, nodes, CORE, None, (), f"Part of ComfyUI itself, says {elsewhere}.", asleep)
    hint = _best(need)
    if hint is not None and hint.names_pack:
        pack = linked[hint]
        ref = pack.ref(hint.version, hint.registry_id)
        said = Evidence(ranking.GRAPH, 1_000, f"The graph says {hint.registry_id or hint.repository}{f' {hint.version}' if hint.version else ''}.")
        mine = next((one for one in candidates if one.pack.key == pack.key), None)
        first = Candidate(ref, (said, *(mine.evidence if mine else ())))
        return ClassUse(need.name, nodes, RESOLVED, ref, (first, *(one for one in candidates if one.pack.key != pack.key)), said.sentence, asleep)
    if any(one.is_core for one in need.hints):
        version = next((one.version for one in need.hints if one.is_core and one.version), "")
        return ClassUse(
            need.name, nodes, CORE, None, candidates, f"Part of ComfyUI itself, says the graph{f' (saved with {version})' if version else ''}.", asleep
        )
    if not candidates:
        return ClassUse(need.name, nodes, MISSING, why="No list, build or graph says which pack brings it.", asleep=asleep)
    why = ranking.decides(candidates)
    if why:
        return ClassUse(need.name, nodes, RESOLVED, candidates[0].pack, candidates, why, asleep)
    count = len(candidates)
    why = f"{count} packs claim it, and nothing decides between them." if count > 1 else "Only its name points to this pack."
    return ClassUse(need.name, nodes, AMBIGUOUS, None, candidates, why, asleep)


def _own(need: ClassNeed, key: str, linked: Mapping[Hint, PackFact]) -> int:
    return sum(count for hint, count in need.hints.items() if hint in linked and linked[hint].key == key)


def _best(need: ClassNeed) -> Hint | None:
    """What most of the nodes say; among equals the one that says a version, then the smallest."""
    naming = [one for one in need.hints if one.names_pack]
    return min(naming, key=lambda one: (-need.hints[one], not one.version, one.registry_id, one.repository, one.version), default=None)


def _all_hints(needs: Needs) -> dict[str, set[Hint]]:
    return {name: {one for one in need.hints if one.names_pack} for name, need in needs.classes.items()}


def _linked(needs: Needs, facts: Facts) -> dict[Hint, PackFact]:
    """Every pack id in the graph to the pack it means; one that no list knows stands for itself."""
    book = _Book(facts)
    found: dict[Hint, PackFact] = {}
    for name, need in needs.classes.items():
        for hint in need.hints:
            if hint.names_pack and hint not in found:
                found[hint] = book.meant(hint, name)
    return found


class _Book:
    """The known packs by everything a graph may call them."""

    def __init__(self, facts: Facts) -> None:
        self.claims = facts.claims
        self.by_repository: dict[str, PackFact] = {}
        self.by_id: dict[str, PackFact] = {}
        self.by_name: dict[str, list[PackFact]] = {}
        for one in facts.packs.values():
            if one.repository:
                self.by_repository.setdefault(spelling.repository_key(one.repository), one)
            if one.registry_id:
                self.by_id.setdefault(one.registry_id, one)
            for name in {one.slug, spelling.slug(one.list_id)} - {""}:
                self.by_name.setdefault(name, []).append(one)

    def meant(self, hint: Hint, class_name: str) -> PackFact:
        """The pack a hint at a node of `class_name` means."""
        known = self.by_repository.get(spelling.repository_key(hint.repository)) if hint.repository else None
        if known:
            return replace(known, registry_id=known.registry_id or hint.registry_id)
        if not hint.registry_id:
            return PackFact(spelling.repository_key(hint.repository), "", hint.repository, hint.repository.partition("://")[2])
        if hint.registry_id in self.by_id:
            return self.by_id[hint.registry_id]
        claimed = {one.pack for one in self.claims.get(class_name, ())}
        alike = [one for one in self.by_name.get(spelling.slug(hint.registry_id), ()) if not one.is_core]
        # A fork bears the same name: one that claims the class goes first, then the one more people use.
        alike.sort(key=lambda one: (one.key not in claimed, -(one.stars or 0), one.key))
        if alike and (alike[0].key in claimed or len(alike) == 1):
            return replace(alike[0], registry_id=hint.registry_id)
        return PackFact(f"cnr:{hint.registry_id}", hint.registry_id, hint.repository, hint.registry_id)


def _packs(uses: tuple[ClassUse, ...]) -> dict[str, PackUse]:
    """The packs that are needed to run, each once, with one version."""
    gathered: dict[str, list[ClassUse]] = {}
    for use in uses:
        if use.pack and not use.asleep and use.status in (RESOLVED, PINNED):
            gathered.setdefault(use.pack.key, []).append(use)
    found: dict[str, PackUse] = {}
    for key, group in gathered.items():
        refs = [use.pack for use in group if use.pack]
        pinned = [use.pack for use in group if use.status == PINNED and use.pack and use.pack.version]
        ref = PackRef(
            key,
            next((one.registry_id for one in refs if one.registry_id), ""),
            next((one.repository for one in refs if one.repository), ""),
            telling.chosen_version([one.version for one in (pinned or refs) if one.version]),
            next((one.title for one in refs if one.title), ""),
        )
        found[key] = PackUse(ref, tuple(use.name for use in group), _why(group))
    return found


def _why(group: list[ClassUse]) -> str:
    order = {PINNED: 0, RESOLVED: 1}
    first = min(group, key=lambda use: (order.get(use.status, 2), not any(one.has(ranking.GRAPH) for one in use.candidates)))
    return first.why


def _versioned(use: ClassUse, packs: Mapping[str, PackUse]) -> ClassUse:
    """The class with the one version of its pack."""
    if use.pack is None or use.pack.key not in packs or use.asleep:
        return use
    whole = packs[use.pack.key].pack
    return replace(use, pack=whole)
