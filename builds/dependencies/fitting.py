"""Refuse a job whose chosen models cannot work together, before it is queued.

Versions that let customers choose a LoRA or a base model are few; all others pay one look into a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from builds.dependencies import facts, folders, modeling, needs
from builds.dependencies.known import Facts
from builds.exposed import load_all
from builds.graphs import bind
from controlplane.kernel.errors import Invalid

KEPT = 1_000
_CHOICES = modeling.BASES | {"loras"}

_choosing: dict[Any, tuple[tuple[str, str, str], ...]] = {}
_lock = Lock()


def refuse_unfit(version: Any, values: Mapping[str, Any]) -> None:
    """Raise Invalid `lora_base_mismatch` when `values` put a LoRA on a base it was not made for."""
    chosen = _inputs(version)
    if not chosen or all(name not in values for name, _, _ in chosen):
        return
    graph = bind(version.graph, version.inputs, values)
    wanted = needs.of(graph=graph)
    models, _ = modeling.resolve(wanted, Facts(models=facts.known_models(wanted)))
    wrong = modeling.mismatches(models, graph)
    if wrong:
        first = wrong[0]
        field = next((name for name, node, key in chosen if (node, key) == (first["node"], first["field"])), chosen[0][0])
        raise Invalid(first["code"], first["message"], first["suggestion"], details={"field": field, **first["details"]})


def _inputs(version: Any) -> tuple[tuple[str, str, str], ...]:
    """Name, node and node input of the exposed inputs that choose a LoRA or a base model, kept by version."""
    found = _choosing.get(version.pk)
    if found is None:
        exposed = [one for one in load_all(version.inputs) if one.type == "string" and not one.is_file]
        found = tuple((one.name, one.node, one.input) for one in exposed if folders.of_input("", one.input) in _CHOICES)
        with _lock:
            if len(_choosing) >= KEPT:
                _choosing.clear()
            _choosing[version.pk] = found
    return found
