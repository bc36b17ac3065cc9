"""How nodes of an API graph hang together: links, cycles, order, what outputs reach, which models are loaded.

A link is a two-element list `[node id, output index]`; every other value is a literal.
Nothing here recurses: graphs come from outside and may be deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]

MODEL_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
MODEL_INPUTS = frozenset(
    (
        *("ckpt_name", "unet_name", "vae_name", "lora_name", "clip_name", "clip_name1", "clip_name2", "clip_name3", "clip_name4", "text_encoder"),
        *("control_net_name", "style_model_name", "gligen_name", "hypernetwork_name", "photomaker_model_name", "audio_encoder_name", "model_path"),
    )
)


@dataclass(frozen=True)
class Link:
    """An edge of the graph: output `slot` of `source` feeds `input` of `target`."""

    source: str
    slot: int
    target: str
    input: str


@dataclass(frozen=True)
class ModelReference:
    """A model file that a node loads."""

    node: str
    input: str
    class_type: str
    name: str


def literal(value: Any) -> Any:
    """The value itself, out of the `{"__value__": …}` wrapper that protects lists from being links."""
    return value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value


def as_link(value: Any) -> tuple[str, int] | None:
    """`(node id, output index)` when `value` is a well-formed link."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    node, slot = value
    if isinstance(slot, bool) or not isinstance(slot, int) or slot < 0:
        return None
    if isinstance(node, str):
        return node, slot
    return (str(node), slot) if isinstance(node, int) and not isinstance(node, bool) else None


def links(graph: Graph) -> Iterator[Link]:
    """Every well-formed link between two nodes that exist."""
    for target, node in graph.items():
        for name, value in node["inputs"].items():
            link = as_link(value)
            if link and link[0] in graph:
                yield Link(link[0], link[1], target, name)


def sources(graph: Graph) -> dict[str, list[str]]:
    """Node id → ids that feed it, each once, in input order."""
    feeds: dict[str, dict[str, None]] = {node: {} for node in graph}
    for link in links(graph):
        feeds[link.target][link.source] = None
    return {node: list(found) for node, found in feeds.items()}


def cycle(graph: Graph) -> list[str] | None:
    """Ids along one cycle, first repeated at the end and in the direction data flows; None when there is none."""
    feeds = sources(graph)
    done: set[str] = set()
    for start in graph:
        if start in done:
            continue
        path: list[str] = [start]
        on_path = {start}
        pending = [iter(feeds[start])]
        while pending:
            above = next(pending[-1], None)
            if above is None:
                pending.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif above in on_path:
                loop = [*path[path.index(above) :], above]
                return loop[::-1]
            elif above not in done:
                path.append(above)
                on_path.add(above)
                pending.append(iter(feeds[above]))
    return None


def layers(graph: Graph) -> dict[str, int]:
    """Node id → length of the longest path that leads to it. Nodes on a cycle count as far as they were reached."""
    feeds = sources(graph)
    waiting = {node: len(above) for node, above in feeds.items()}
    below: dict[str, list[str]] = {node: [] for node in graph}
    for node, above in feeds.items():
        for source in above:
            below[source].append(node)
    layer = dict.fromkeys(graph, 0)
    ready = [node for node, count in waiting.items() if count == 0]
    for node in ready:
        for target in below[node]:
            layer[target] = max(layer[target], layer[node] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    return layer


def upstream(graph: Graph, ends: list[str]) -> set[str]:
    """`ends` and everything that feeds them."""
    feeds = sources(graph)
    seen: set[str] = set()
    pending = [node for node in ends if node in feeds]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(feeds[node])
    return seen


def is_model(name: str, value: Any) -> bool:
    """Whether the literal `value` of input `name` is a model file."""
    if not isinstance(value, str) or not value:
        return False
    return name in MODEL_INPUTS or value.lower().endswith(MODEL_SUFFIXES)


def models(graph: Graph) -> list[ModelReference]:
    """Every model file that loader inputs name, in graph order."""
    found = []
    for node_id, node in graph.items():
        for name, raw in node["inputs"].items():
            value = literal(raw)
            if is_model(name, value) and name != "filename_prefix":
                found.append(ModelReference(node_id, name, str(node.get("class_type", "")), value))
    return found
