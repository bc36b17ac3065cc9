"""Model files of a graph against what is known of them: where to get each, and which cannot work together.

Pure. The graph's own links come first, then what lists, people and file headers say of a file of that
name in that folder. A LoRA made for another base than the model it is applied to is an error before
any worker is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builds.dependencies import folders, spelling
from builds.dependencies.families import title
from builds.dependencies.known import Facts
from builds.dependencies.model_needs import ModelNeed
from builds.dependencies.needs import Needs
from builds.dependencies.report import AMBIGUOUS, KNOWN, UNKNOWN, ModelSource, ModelUse
from builds.dependencies.telling import INFO, short
from builds.findings import ERROR, WARNING, finding
from builds.links import as_link

BASES = frozenset({"checkpoints", "diffusion_models"})
MAX_MODELS = 1_000


def resolve(needs: Needs, facts: Facts) -> tuple[tuple[ModelUse, ...], list[dict[str, Any]]]:
    """Every model with its facts, and the findings about them."""
    uses: list[ModelUse] = []
    found: list[dict[str, Any]] = []
    for need in needs.models[:MAX_MODELS]:
        use = _use(need, sources_of(need, facts))
        uses.append(use)
        if not need.asleep:
            found += _findings(need, use)
    found += mismatches([one for one in uses if not one.asleep], needs.graph)
    return tuple(uses), found


def sources_of(need: ModelNeed, facts: Facts) -> list[ModelSource]:
    """Who knows the file, the graph itself first."""
    base = spelling.basename(need.name).lower()
    listed = list(facts.models.get(base, ()))
    if need.any_suffix:
        listed += [one for name, found in facts.models.items() if name.rpartition(".")[0] == base for one in found]
    if need.directory:
        same = [one for one in listed if one.directory == need.directory]
        listed = same or [one for one in listed if not one.directory]
    own = [ModelSource(need.directory, need.url, need.sha256, source="the graph")] if need.url or need.sha256 else []
    return own + listed


def _use(need: ModelNeed, sources: list[ModelSource]) -> ModelUse:
    directory = need.directory or (sources[0].directory if len({one.directory for one in sources}) == 1 else "")
    places: list[ModelSource] = []
    for one in sources:
        if (one.url or one.sha256) and not any(_same(one, other) for other in places):
            places.append(one)
    if need.url or need.sha256:
        # The author's own word; what others say of the same name is shown, not asked.
        chosen = places[0]
        status = KNOWN if chosen.url or len(places) == 1 else AMBIGUOUS
    else:
        chosen = places[0] if len(places) == 1 else ModelSource(directory)
        status = UNKNOWN if not places else KNOWN if len(places) == 1 else AMBIGUOUS
    facts = _filled(chosen, sources) if status == KNOWN or not places else chosen
    if status == KNOWN and not facts.url:
        status = UNKNOWN
    # What a header says goes before what anybody says of the name.
    family = _agreed(one.family for one in sources if one.measured and _same(one, facts)) or facts.family or _agreed(one.family for one in sources)
    name = need.name
    if need.any_suffix and status == KNOWN and facts.filename:
        name = f"{name.rpartition('/')[0]}/{facts.filename}".lstrip("/")
    use = ModelUse(
        name, directory, need.node, need.input, status, need.class_type, facts.kind or folders.kind_of(directory), facts.url, facts.size_bytes,
        facts.size_about, facts.sha256, facts.licence, family, facts.precision, tuple(places if len(places) > 1 else ()),
    )  # fmt: skip
    missing = {"directory": use.directory, "address": use.url, "size": use.size_bytes, "sha256": use.sha256, "licence": use.licence, "family": use.family}
    return replace(use, unknown=tuple(word for word, value in missing.items() if not value), fix=_fix(use), asleep=need.asleep)


def _same(one: ModelSource, other: ModelSource) -> bool:
    """Whether two sources mean the same file: one hash, or one address without two hashes."""
    if one.sha256 and other.sha256:
        return one.sha256 == other.sha256
    if one.url and other.url:
        return one.url.partition("?")[0] == other.url.partition("?")[0]
    return True


def _filled(chosen: ModelSource, sources: Iterable[ModelSource]) -> ModelSource:
    """`chosen` with what it leaves open, from sources that mean the same file."""
    for other in sources:
        if other is not chosen and _same(chosen, other) and (chosen.size_bytes is None or other.size_bytes in (None, chosen.size_bytes)):
            fields = ("url", "sha256", "size_bytes", "size_about", "family", "licence", "precision", "kind")
            chosen = replace(chosen, **{name: getattr(chosen, name) or getattr(other, name) for name in fields})
    return chosen


def _agreed(values: Iterable[str]) -> str:
    said = {one for one in values if one}
    return said.pop() if len(said) == 1 else ""


def _fix(use: ModelUse) -> str:
    if use.status == AMBIGUOUS:
        return f"{len(use.candidates)} different files have this name; say which by its address or sha256."
    if use.status == UNKNOWN:
        return "Say where it can be had: its address here, or a model link in the canvas file."
    if not use.sha256:
        return "Say its sha256, or read it from the file: manage.py inspect_model FILE --keep --hash."
    return "" if use.licence else "Say its licence, so that nobody serves what may not be sold."


def _findings(need: ModelNeed, use: ModelUse) -> list[dict[str, Any]]:
    where: dict[str, Any] = {"node": need.node, "field": need.input}
    name = short(need.name)
    found = []
    unsafe = spelling.unsafe_path(need.name)
    if unsafe:
        found.append(finding(ERROR, "model_path_unsafe", f"{name} cannot be a model's name: {unsafe}.", "Choose a file inside the models folder.", **where))
    if use.status == UNKNOWN:
        found.append(finding(WARNING, "model_source_unknown", f"Nobody here knows where {name} can be had.", use.fix, **where, model=need.name[:300]))
    elif use.status == AMBIGUOUS:
        found.append(finding(WARNING, "model_ambiguous", f"Several files are called {name}.", use.fix, **where, model=need.name[:300]))
    if not use.directory:
        found.append(
            finding(
                WARNING,
                "model_folder_unknown",
                f"Which folder {name} belongs in is not known.",
                "Say its folder with the address.",
                **where,
                model=need.name[:300],
            )
        )
    if folders.suffix_is_pickle(need.name):
        found.append(
            finding(INFO, "model_may_run_code", f"{name} is a pickle file, which can run code when it is loaded.", "Prefer a .safetensors file.", **where)
        )
    return found


def mismatches(uses: Iterable[ModelUse], graph: Mapping[str, Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """LoRAs whose base is known and differs from the known family of the model they are applied to."""
    known = list(uses)
    bases = [one for one in known if one.directory in BASES]
    by_node: dict[str, list[ModelUse]] = {}
    for one in bases:
        by_node.setdefault(one.node, []).append(one)
    found = []
    for lora in known:
        if lora.directory != "loras" or not lora.family:
            continue
        for base in _bases_of(lora.node, by_node, graph) if graph is not None else (bases if len({one.family for one in bases}) == 1 else []):
            if base.family and base.family != lora.family:
                made, works = title(lora.family), title(base.family)
                message = f"The LoRA {short(lora.name)} was made for {made}, but it is applied to {short(base.name)}, which belongs to {works}."
                suggestion = f"Choose a LoRA for {works}, or a base model of the {made} family."
                found.append(
                    finding(ERROR, "lora_base_mismatch", message, suggestion, node=lora.node, field=lora.input, lora=lora.name[:300], base=base.name[:300],
                            lora_base=lora.family, base_family=base.family)
                )  # fmt: skip
                break
    return found


def _bases_of(node: str, by_node: Mapping[str, list[ModelUse]], graph: Mapping[str, Mapping[str, Any]]) -> list[ModelUse]:
    """The base models a LoRA node works on: up its model inputs; else those of the nodes that take the LoRA from it."""
    found: list[ModelUse] = []
    seen: set[str] = set()
    pending = [node]
    while pending and len(seen) < 5_000:
        at = pending.pop()
        if at in seen or at not in graph:
            continue
        seen.add(at)
        if at in by_node:
            found += by_node[at]
            continue
        links = {name: link[0] for name, value in (graph[at].get("inputs") or {}).items() if (link := as_link(value))}
        through = {
            name: source
            for name, source in links.items()
            if "model" in name.lower() or name.lower() in ("unet", "pipe", "basic_pipe", "lora_stack", "prev_lora")
        }
        pending += (through or ({} if at == node else links)).values()
    if found:
        return found
    for target, entry in graph.items():
        if target in by_node and any((link := as_link(value)) and link[0] in seen for value in (entry.get("inputs") or {}).values()):
            found += by_node[target]
    return found
