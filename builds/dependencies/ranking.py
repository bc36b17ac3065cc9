"""Rank the packs that may bring a class, with the evidence for each.

Pure. Weights are on one scale: what a build saw or the target has installed is near proof; a list's
word that only one pack gives is strong; then come what else the graph needs, the list's precedence,
and last how many people use the pack. Every reason for a pack adds, so more of it never lowers it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from builds.dependencies import spelling
from builds.dependencies.known import Claim, Facts, PackFact
from builds.dependencies.report import Candidate, Evidence

GRAPH, PIN, BUILT, INSTALLED, LISTED, ONLY, PREFERRED, NAMED, COHERENT, STARS, NAMESAKE, PATTERN, KIN, DEPRECATED = (
    *("graph", "pin", "built", "installed", "listed", "only", "preferred", "named", "coherent"),
    *("stars", "namesake", "pattern", "kin", "deprecated"),
)
_BASE = {"built": 400, "installed": 350, "listed": 100, "pattern": 25, "kin": 15}
_WEAK = frozenset({"pattern", "kin"})


@dataclass(frozen=True)
class Surroundings:
    """What the rest of a graph says: how many classes need a pack, and which of them each pack brings."""

    count: int
    brought: Mapping[str, frozenset[str]]


def surroundings(unknown: Iterable[str], facts: Facts) -> Surroundings:
    """Of all classes of a graph that need a pack."""
    brought: dict[str, set[str]] = {}
    names = set(unknown)
    for name in names:
        for claim in facts.claims.get(name, ()):
            if claim.evidence not in _WEAK:
                brought.setdefault(claim.pack, set()).add(name)
    return Surroundings(len(names), {pack: frozenset(found) for pack, found in brought.items()})


def rank(name: str, *, facts: Facts, around: Surroundings, named: Mapping[str, int] | None = None) -> tuple[Candidate, ...]:
    """The candidates for class `name`, best first. `named` counts the other nodes of the graph that carry a pack's id, by its key."""
    claims: dict[str, list[Claim]] = {}
    for claim in facts.claims.get(name, ()):
        pack = facts.packs.get(claim.pack)
        if pack is not None and not pack.is_core:
            claims.setdefault(claim.pack, []).append(claim)
    exact = [key for key, found in claims.items() if any(one.evidence not in _WEAK for one in found)]
    candidates = [
        Candidate(facts.packs[key].ref(), tuple(_evidence(facts.packs[key], name, found, exact, around, named or {}))) for key, found in claims.items()
    ]
    return tuple(sorted(candidates, key=lambda one: (-one.score, one.pack.key)))


def _evidence(pack: PackFact, name: str, claims: list[Claim], exact: list[str], around: Surroundings, named: Mapping[str, int]) -> Iterable[Evidence]:
    kinds = {one.evidence for one in claims}
    if "built" in kinds:
        yield Evidence(BUILT, _BASE["built"], "A finished build saw this pack bring the class.")
    if "installed" in kinds:
        yield Evidence(INSTALLED, _BASE["installed"], f"The target ComfyUI has the class from a folder of this name ({pack.slug or pack.key}).")
    if "listed" in kinds:
        yield Evidence(LISTED, _BASE["listed"], "The public node list says the pack brings the class.")
    elif "pattern" in kinds and not kinds & {"built", "installed"}:
        yield Evidence(PATTERN, _BASE["pattern"], "Only the pack's name pattern fits the class; no list names the class itself.")
    elif "kin" in kinds and not kinds & {"built", "installed"}:
        yield Evidence(KIN, _BASE["kin"], "No list names the class; most listed classes whose names begin alike are this pack's.")
    if exact == [pack.key]:
        yield Evidence(ONLY, 60, "No other pack claims it.")
    if any(one.preferred for one in claims):
        yield Evidence(PREFERRED, 50, "The list gives this pack precedence for the class.")
    if named.get(pack.key):
        count = named[pack.key]
        yield Evidence(NAMED, 120, f"The graph names this pack at {count} other node{'' if count == 1 else 's'}.")
    if _namesake(name, pack):
        yield Evidence(NAMESAKE, 20, "The pack bears the name of the class.")
    shared = len(around.brought.get(pack.key, frozenset()) - {name})
    if shared:
        others = max(shared, around.count - 1)
        weight = round(60 * shared / others) + 5 * min(shared, 8)
        yield Evidence(COHERENT, weight, f"It also brings {shared} of the {others} other classes this graph needs a pack for.")
    if pack.stars:
        yield Evidence(STARS, min(25, round(6 * math.log10(1 + pack.stars))), f"{pack.stars:,} star{'' if pack.stars == 1 else 's'}{_since(pack)}.")
    if pack.deprecated:
        yield Evidence(DEPRECATED, -40, "Its authors call it deprecated.")


def _namesake(name: str, pack: PackFact) -> bool:
    """Whether the words of a class's name stand in the pack's own name."""
    words = spelling.slug(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name))
    return len(words) >= 5 and (words in pack.slug or words.replace("-", "") in pack.slug.replace("-", ""))


def _since(pack: PackFact) -> str:
    return f", last changed {pack.updated[:10]}" if pack.updated else ""


def decides(candidates: tuple[Candidate, ...]) -> str:
    """Why the first candidate may be taken without asking, or empty when a person should choose."""
    if not candidates:
        return ""
    first, rest = candidates[0], candidates[1:]
    if first.has(BUILT) and not any(one.has(BUILT) for one in rest):
        return "A finished build saw this pack bring the class."
    if first.has(INSTALLED) and not any(one.has(INSTALLED) for one in rest):
        return "The target ComfyUI has the class from this pack."
    if first.has(ONLY) and not first.has(DEPRECATED):
        return "It is the only pack that claims the class."
    if first.has(PATTERN) or first.has(KIN):
        return ""
    if first.has(NAMED) and not any(one.has(NAMED) for one in rest):
        return "The graph names this pack at other nodes."
    if first.has(PREFERRED) and not any(one.has(PREFERRED) for one in rest):
        return "The list gives this pack precedence for the class."
    return ""
