"""Which layer a step made, and how large it is. Pure.

The engine tells an image's layers as a history of instructions; BuildKit tells steps of stages. The stages of the final
image form a chain, so their layer-making steps are the newest entries of the history, in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from builds.images.dockerfile import CHAIN
from builds.models import BuildStep

_STAGED = re.compile(r"\[(?:[A-Za-z0-9_.-]+ )?(\d+)/\d+\] ([A-Z]+) ")
# WORKDIR stands for directories that are there already: its entry carries no layer.
_MAKES_LAYER = ("RUN", "COPY", "ADD")


def sizes(steps: Sequence[BuildStep], history: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Bytes by position of the step. Empty where steps and history do not fit each other: a guess would mislead.

    `history` is the engine's, newest first: [{"CreatedBy": "COPY /a /b # buildkit", "Size": 12}, …].
    """
    ordered = sorted(((CHAIN.index(step.stage), index, verb, step.position) for step in steps if (parsed := _parsed(step)) for index, verb in [parsed]))
    made = [(verb, position) for _, _, verb, position in ordered]
    entries = [(verb, int(entry.get("Size") or 0)) for entry in reversed(history) if (verb := _verb(str(entry.get("CreatedBy") or "")))]
    if len(entries) < len(made):
        return {}
    entries = entries[len(entries) - len(made) :]
    if [verb for verb, _ in entries] != [verb for verb, _ in made]:
        return {}
    return {position: size for (_, position), (_, size) in zip(made, entries, strict=True)}


def _parsed(step: BuildStep) -> tuple[int, str] | None:
    found = _STAGED.match(step.name)
    if found is None or step.stage not in CHAIN or found[2] not in _MAKES_LAYER:
        return None
    return int(found[1]), found[2]


def _verb(created_by: str) -> str:
    verb = created_by.split(" ", 1)[0]
    return verb if verb in _MAKES_LAYER and created_by.endswith("# buildkit") else ""
