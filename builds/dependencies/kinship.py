"""Which pack a class nobody lists may belong to, by the way its name begins.

Packs mark their classes with a word of their own (`AILab_…`, `WanVideo…`), and lists lag behind
packs. Where nearly all listed classes that begin alike come from one pack, it is shown as a candidate;
it never decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

LEAST = 3
SHARE = 0.6
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_MARKED = re.compile(r"\s[(\[][^()\[\]]{2,40}[)\]]$")
# Words that packs of all kinds begin with.
_COMMON = frozenset(
    {"image", "load", "save", "text", "video", "audio", "model", "prompt", "string", "simple", "apply", "create", "batch", "preview", "latent", "float"}
)


def marks(name: str) -> list[str]:
    """What may tell the pack of a class, the most telling first: a word before an underscore, first words, initials or a word in brackets at the end."""
    found = []
    end = _MARKED.search(name)
    if end:
        found.append(f"*{end.group().lower()}")
    tail = re.search(r"(?<=[a-z0-9])[A-Z]{2,5}$", name)
    if tail:
        found.append(f"*{tail.group()}")
    head, underscore, _ = name.partition("_")
    if underscore and 2 <= len(head) <= 30 and head.lower() not in _COMMON:
        found.append(f"{head.lower()}_")
    words = _WORD.findall(name[:60]) if name[:1].isascii() else []
    for count in (2, 1):
        start = "".join(words[:count]).lower()
        if len(words) > count and len(start) >= 4 and words[0].lower() not in _COMMON and name[:60].lower().startswith(start):
            found.append(start)
    return list(dict.fromkeys(found))


def index(claims: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Mark → how many classes with it each pack has, of (class, pack key)."""
    table: dict[str, Counter[str]] = {}
    for name, pack in claims:
        for mark in marks(name):
            table.setdefault(mark, Counter())[pack] += 1
    return table


def likely(name: str, table: Mapping[str, Counter[str]]) -> str:
    """The pack whose classes begin as this one does, or empty."""
    for mark in marks(name):
        packs = table.get(mark)
        if packs:
            pack, count = packs.most_common(1)[0]
            if count >= LEAST and count >= SHARE * packs.total():
                return pack
    return ""
