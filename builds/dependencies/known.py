"""What is known about the classes and models of one graph, as plain values: the resolver's only view of the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.dependencies import spelling
from builds.dependencies.report import ModelSource, PackRef

# Shipped by ComfyUI itself inside its custom_nodes folder.
_CORE_CUSTOM = frozenset({"custom_nodes.websocket_image_save", "custom_nodes.example_node"})


@dataclass(frozen=True)
class PackFact:
    """A pack as the lists know it."""

    key: str
    registry_id: str = ""
    repository: str = ""
    title: str = ""
    stars: int | None = None
    updated: str = ""
    deprecated: bool = False
    slug: str = ""
    list_id: str = ""

    @property
    def is_core(self) -> bool:
        return spelling.repository_key(self.repository) in spelling.CORE_REPOSITORIES

    def ref(self, version: str = "", registry_id: str = "") -> PackRef:
        return PackRef(self.key, registry_id or self.registry_id, self.repository, version, self.title)


@dataclass(frozen=True)
class Claim:
    """A pack brings a class: `listed`, `built` (a finished build saw it), `installed` on the target, or only by its name: `pattern`, `kin`."""

    pack: str
    evidence: str
    preferred: bool = False


@dataclass(frozen=True)
class PinFact:
    """A person's word."""

    pack: str
    version: str
    reason: str
    author: str
    everywhere: bool


@dataclass(frozen=True)
class Target:
    """The ComfyUI a graph is meant to run on, as its object_info tells."""

    name: str = ""
    version: str = ""
    sha256: str = ""
    classes: int = 0


@dataclass(frozen=True)
class Facts:
    """All of it, for the classes and models of one graph."""

    target: Target = field(default_factory=Target)
    core: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()
    core_elsewhere: Mapping[str, str] = field(default_factory=dict)
    packs: Mapping[str, PackFact] = field(default_factory=dict)
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)
    pins: Mapping[str, PinFact] = field(default_factory=dict)
    models: Mapping[str, tuple[ModelSource, ...]] = field(default_factory=dict)
    lists: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_lists(self) -> bool:
        return any(one.get("kind") == "node_map" for one in self.lists)


def is_core_module(entry: Any) -> bool:
    """Whether an object_info entry belongs to ComfyUI itself."""
    module = entry.get("python_module") if isinstance(entry, Mapping) else None
    if not isinstance(module, str) or not module:
        # Servers before 2024 do not say; nothing else is known of them.
        return True
    return not module.startswith("custom_nodes") or module in _CORE_CUSTOM


def pack_folder(entry: Any) -> str:
    """The folder under custom_nodes that an object_info entry came from, or empty."""
    module = entry.get("python_module") if isinstance(entry, Mapping) else None
    if not isinstance(module, str) or not module.startswith("custom_nodes.") or module in _CORE_CUSTOM:
        return ""
    return module.removeprefix("custom_nodes.")[:120]
