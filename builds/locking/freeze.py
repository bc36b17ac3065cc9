"""Read uv's answer: the freeze with its hashes and who asked, or the conflict with both of its sides.

Pure. The layer of a package is the earliest part of the image that needs it: what torch needs lies under what
ComfyUI needs, and only what packs alone need changes when a pack does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from builds.locking.requirements import Asked

# What packs may not move under ComfyUI's feet: the compiled stack whose parts must fit each other and the driver.
PROTECTED = re.compile(r"torch|torchvision|torchaudio|numpy|triton|pytorch-triton.*|nvidia-.*|cuda-.*")
TORCH = re.compile(r"torch|torchvision|torchaudio|triton|pytorch-triton.*|nvidia-.*|cuda-.*")
OWN_ASKERS = ("comfyui", "agent", "person")
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==\s*(?P<version>[^\s;\\]+)|@\s*(?P<url>[^\s;\\]+))\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$"
)
_NEEDED = re.compile(r"\byou require ([^,]*?)(?=, we can conclude|, and you|,? and (?:because )?\S+ (?:depends|was|has|==)|, |\.?$)")
_TOKEN = re.compile(r"(?<![\w.@/-])([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?((?:[<>=!~]=?=?[^\s,;)]+,?)*)")


@dataclass
class Pinned:
    """One line of the freeze."""

    name: str
    version: str
    url: str
    marker: str
    hashes: list[str]
    via: list[str]


@dataclass(frozen=True)
class Conflict:
    """Why no freeze exists: what the resolver said, and the requirements that meet head on, with who asked each."""

    said: str
    sides: tuple[Asked, ...]
    packages: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        sides = [{"asker": one.asker, "requirement": one.text, "where": one.where} for one in self.sides]
        return {"said": self.said, "packages": list(self.packages), "sides": sides}


def read(text: str) -> list[Pinned]:
    """uv's requirements.txt with hashes and `# via` notes."""
    pins: list[Pinned] = []
    noting = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("--hash="):
            pins[-1].hashes.append(line.removeprefix("--hash=").rstrip("\\ "))
        elif line.startswith("# via") or (noting and line.startswith("#")):
            noting = True
            said = line.removeprefix("# via").removeprefix("#").strip()
            if said and pins:
                pins[-1].via.append(said)
            continue
        elif match := _PIN.fullmatch(line):
            url = match["url"] or ""
            pins.append(Pinned(canonicalize_name(match["name"]), match["version"] or "", url, (match["marker"] or "").strip(), [], []))
        noting = False
    return pins


def packages(pins: Iterable[Pinned], askers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The freeze as the lock holds it; `askers` maps file names given to uv to whom they speak for."""
    pins = list(pins)
    needs: dict[str, set[str]] = {}
    asked: dict[str, set[str]] = {}
    for pin in pins:
        for via in pin.via:
            file = via.removeprefix("-r ").removeprefix("-c ").strip()
            if via.startswith("-r ") and file in askers:
                asked.setdefault(pin.name, set()).add(askers[file])
            elif not via.startswith("-"):
                needs.setdefault(canonicalize_name(re.split(r"[\[@ ]", via)[0]), set()).add(pin.name)
    torch = _below({pin.name for pin in pins if TORCH.fullmatch(pin.name)}, needs)
    comfyui = _below({name for name, who in asked.items() if who & set(OWN_ASKERS)}, needs)
    return [
        {
            "name": pin.name,
            "version": pin.version,
            "url": pin.url,
            "marker": pin.marker,
            "hashes": [] if pin.url.startswith("git+") else pin.hashes,
            "asked_by": sorted(asked.get(pin.name, ())),
            "layer": "torch" if pin.name in torch else "comfyui" if pin.name in comfyui else "packs",
        }
        for pin in pins
    ]


def _below(roots: set[str], needs: Mapping[str, set[str]]) -> set[str]:
    seen, pending = set(roots), list(roots)
    while pending:
        new = needs.get(pending.pop(), set()) - seen
        seen |= new
        pending += new
    return seen


def conflict(said: str, asked: Iterable[Asked], protected: Iterable[Asked] = ()) -> Conflict:
    """Who stands behind a refusal. `protected` are our own constraints, shown as a side when they are one."""
    listed = [*asked, *protected]
    text = " ".join(line.strip() for line in said.splitlines())
    wanted = [(canonicalize_name(name), frozenset(part for part in spec.split(",") if part)) for name, spec in _needed(text)]
    sides = [one for one in listed if any(one.name == name and (not spec or _specifiers(one.text) == spec) for name, spec in wanted)]
    if len({(one.asker, one.name) for one in sides}) < 2:
        # Said in a way that is not understood here: everybody who names one of its packages is shown.
        names = {canonicalize_name(name) for name, _ in _tokens(text)}
        sides = [one for one in listed if one.name in names]
    found = dict.fromkeys(sides)
    return Conflict(_shortened(text), tuple(found), tuple(sorted({one.name for one in found})))


def _needed(text: str) -> list[tuple[str, str]]:
    """Name and specifier of every requirement that the message says we made."""
    return [token for match in _NEEDED.finditer(text) for part in match[1].split(" and ") for token in _tokens(part)]


def _tokens(text: str) -> list[tuple[str, str]]:
    return [(name, spec.rstrip(",.")) for name, spec in _TOKEN.findall(text)]


def _specifiers(text: str) -> frozenset[str]:
    spec = re.sub(r"^[A-Za-z0-9._-]+(\[[^\]]*\])?", "", text.split(";")[0].split("@")[0]).replace(" ", "")
    return frozenset(part for part in spec.strip("()").split(",") if part)


def _shortened(text: str) -> str:
    text = re.sub(r"^(?:error:)?\s*No solution found when resolving dependencies:?\s*(cause:\s*)?", "", text.strip())
    return text if len(text) <= 2_000 else text[:1_997] + "…"
