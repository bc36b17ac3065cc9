"""Which node inputs customers may set: a chosen list, or a handful picked by what people usually change.

Types and ranges come from the node library, or from the value in the graph where no library is
known. A chosen list may narrow what the node allows, never widen it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from builds import wording
from builds.exposed import ExposedInput
from builds.findings import convert
from builds.links import Graph, as_link, is_model, links, literal
from builds.narrowing import overlay
from builds.nodespecs import InputSpec, info_of, read
from controlplane.kernel.errors import Invalid

HANDFUL = 8
LATER = 50
MAX_EXPOSED = 60
MAX_OPTIONS = 500
INT_RANGE = (-(2**63), 2**64 - 1)
NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")

_NUMBERS = (
    *("width", "height", "batch_size", "length", "duration", "frames", "frame_rate", "fps"),
    *("steps", "cfg", "guidance", "denoise", "strength", "strength_model", "scale_by", "megapixels"),
    *("blend_factor", "blur_radius", "sigma", "radius", "factor", "volume", "brightness", "contrast", "saturation", "amount", "opacity", "value", "quality"),
)
_TEXTS = frozenset(["text", "prompt", "positive_prompt", "negative_prompt", "caption", "lyrics", "tags", "string", "string_a", "string_b", "value"])
_NEVER = frozenset(["filename_prefix", "regex_pattern", "replace", "delimiter", "format"])
_SEEDS = frozenset({"seed", "noise_seed"})
_FILE_CLASSES = (("Audio", "audio"), ("Video", "video"), ("Image", "image"))


def describe(graph: Graph, library: Any, *, node: str, input: str, name: str = "") -> ExposedInput:
    """What exposing `node`.`input` would offer, with the graph's own value as its default."""
    if node not in graph:
        raise Invalid(
            "expose_unknown_node", f"The graph has no node {node!r}.", "Expose inputs as NODE.INPUT, with a node id of the graph.", details={"node": node}
        )
    held, spec = graph[node], read(info_of(library), graph[node].get("class_type"))
    declared = spec.inputs.get(input) if spec else None
    raw = held["inputs"].get(input)
    if input not in held["inputs"] and (declared is None or not declared.is_widget):
        raise Invalid(
            "expose_unknown_input",
            f"Node {node} ({held.get('class_type', '?')}) has no input {input!r}.",
            f"It has: {', '.join(sorted(held['inputs'])[:20]) or 'none'}.",
            details={"node": node, "input": input},
        )
    if as_link(raw) or isinstance(raw, list):
        raise Invalid(
            "expose_linked_input",
            f"Input {input} of node {node} is fed by another node, so nobody can set it.",
            "Expose an input of the node that feeds it.",
            details={"node": node, "input": input},
        )
    value = literal(raw)
    kind = _file_kind(held.get("class_type", ""), input, declared)
    shared: dict[str, Any] = {"name": name or _slug(input), "node": node, "input": input, "title": _human(name or input), "kind": kind}
    if declared:
        shared["description"] = str(declared.meta.get("tooltip") or "")[:500]
    if kind != "value":
        return ExposedInput(**shared, type="string", required=True)
    return _typed(shared, declared, value)


def choose(graph: Graph, library: Any) -> list[ExposedInput]:
    """A handful of inputs worth setting: files, texts, seeds, then sizes and strengths; with clear, unique names."""
    info = info_of(library)
    roles = _prompt_roles(graph)
    crowd = Counter(wording.title(node) for node in graph.values())
    ranked: list[tuple[int, int, ExposedInput]] = []
    for order, (node_id, node) in enumerate(graph.items()):
        spec = read(info, node.get("class_type"))
        is_source = not any(as_link(value) for value in node["inputs"].values())
        for name, raw in node["inputs"].items():
            if isinstance(raw, list) or name in _NEVER:
                continue
            declared = spec.inputs.get(name) if spec else None
            if (spec and (declared is None or not (declared.is_widget or declared.upload))) or not _exposable(literal(raw)):
                continue
            one = describe(graph, library, node=node_id, input=name, name=roles.get(node_id, "") if name in _TEXTS else "")
            rank = _rank(one, is_source=is_source, crowded=crowd[wording.title(node)] > 1)
            if rank is not None:
                ranked.append((rank, order, one))
    # Where a source node has a width, the width of a later step is the author's business.
    at_source = {one.input for rank, _, one in ranked if rank < LATER}
    ranked = [row for row in ranked if row[0] < LATER or row[2].input not in at_source]
    kept = sorted(ranked, key=lambda row: (row[0], row[1]))[:HANDFUL]
    return _named(graph, [one for _, _, one in kept])


def chosen(graph: Graph, library: Any, items: Iterable[Any]) -> list[ExposedInput]:
    """The list somebody asked for: `"node.input"`, `"node.input=name"`, or objects that also say title, default or narrower ranges."""
    info = info_of(library)
    result: list[ExposedInput] = []
    for item in items:
        if isinstance(item, str):
            path, _, name = item.partition("=")
            node, _, input_name = path.partition(".")
            result.append(describe(graph, library, node=node.strip(), input=input_name.strip(), name=name.strip()))
        elif isinstance(item, ExposedInput):
            offered = describe(graph, library, node=item.node, input=item.input, name=item.name)
            result.append(overlay(offered, said(item), known=_known(graph, info, item.node)))
        elif isinstance(item, Mapping):
            offered = describe(graph, library, node=str(item.get("node", "")), input=str(item.get("input", "")), name=str(item.get("name") or ""))
            result.append(overlay(offered, item, known=_known(graph, info, offered.node)))
        else:
            raise Invalid("expose_malformed", "An exposed input is neither text nor an object.", "Write NODE.INPUT or NODE.INPUT=NAME.")
    _check_names(result)
    return result


def said(item: ExposedInput) -> dict[str, Any]:
    """What an ExposedInput written by hand says; what it leaves at None or `value`, the node decides."""
    return {key: value for key, value in item.dump().items() if value is not None and (key, value) != ("kind", "value")}


def _known(graph: Graph, info: Mapping[str, Any] | None, node: str) -> bool:
    return read(info, graph[node].get("class_type")) is not None


def _typed(shared: dict[str, Any], declared: InputSpec | None, value: Any) -> ExposedInput:
    kind = declared.type if declared else {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}.get(type(value), "")
    meta = declared.meta if declared else {}
    if kind == "COMBO" and declared is not None:
        options = list(declared.options or ())
        simple = {type(option) for option in options}
        if meta.get("multiselect") and isinstance(value, list):
            raise _unsupported(shared, "a choice of several values")
        if len(options) > MAX_OPTIONS or len(simple) > 1 or not simple <= {str, int, float}:
            options, simple = [], {type(value)}
        type_name = {int: "integer", float: "number"}.get(next(iter(simple), str), "string")
        default = value if value in options or (not options and isinstance(value, str)) else None
        # An empty list means the server had none when asked: then only the value in the graph is known.
        enum = options or ([default] if default is not None else None)
        return ExposedInput(**shared, type=type_name, default=default, enum=enum, required=default is None)
    if kind == "STRING":
        return ExposedInput(
            **shared,
            type="string",
            default=value if isinstance(value, str) else None,
            required=not isinstance(value, str),
            multiline=bool(meta.get("multiline")),
        )
    if kind == "BOOLEAN":
        return ExposedInput(**shared, type="boolean", default=value if isinstance(value, bool) else None, required=not isinstance(value, bool))
    if kind not in ("INT", "FLOAT"):
        raise _unsupported(shared, kind or "an unknown type")
    low, high = (declared.bound("min"), declared.bound("max")) if declared else (None, None)
    if kind == "INT":
        low, high = (INT_RANGE[0] if low is None else max(low, INT_RANGE[0])), (INT_RANGE[1] if high is None else min(high, INT_RANGE[1]))
    number, verdict = convert(kind, value)
    fits = verdict == "exact" and number is not None and (low is None or number >= low) and (high is None or number <= high)
    step = declared.bound("step") if declared else None
    randomize = kind == "INT" and (shared["input"] in _SEEDS or bool(meta.get("control_after_generate")))
    return ExposedInput(
        **shared,
        type="integer" if kind == "INT" else "number",
        default=number if fits else None,
        minimum=low,
        maximum=high,
        step=step if step and step > 0 else None,
        required=not fits and not randomize,
        randomize=randomize,
    )


def _unsupported(shared: Mapping[str, Any], what: str) -> Invalid:
    return Invalid(
        "expose_type_unsupported",
        f"Input {shared['input']} of node {shared['node']} takes {what}, which customers cannot send.",
        "Expose numbers, texts, switches, choices and files.",
        details={"node": shared["node"], "input": shared["input"]},
    )


def _exposable(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _file_kind(class_type: str, name: str, declared: InputSpec | None) -> str:
    if declared:
        upload = declared.upload
        return next((kind for word, kind in _FILE_CLASSES if word in class_type), "file") if upload == "file" else upload or "value"
    if class_type.startswith(("LoadImage", "LoadAudio", "LoadVideo", "VHS_LoadVideo")) and name in ("image", "audio", "video", "file"):
        return next(kind for word, kind in _FILE_CLASSES if word in class_type)
    return "value"


def _rank(one: ExposedInput, *, is_source: bool, crowded: bool) -> int | None:
    if one.is_file:
        return 0
    if one.type == "string" and one.enum is None and not is_model(one.input, one.default):
        return 1 if one.input in _TEXTS and (one.multiline or one.input != "value" or is_source) else None
    if one.randomize:
        return 2
    if one.type in ("integer", "number") and one.enum is None and one.input in _NUMBERS and not crowded:
        return (3 if is_source else LATER) + _NUMBERS.index(one.input)
    return None


def _prompt_roles(graph: Graph) -> dict[str, str]:
    """Node id → `prompt` or `negative_prompt`, for text nodes that feed a sampler within a few steps."""
    feeding: dict[str, list[tuple[str, str]]] = {}
    for link in links(graph):
        feeding.setdefault(link.target, []).append((link.input, link.source))
    roles: dict[str, str] = {}
    for pairs in list(feeding.values()):
        inputs = dict(pairs)
        if "positive" not in inputs or inputs["positive"] == inputs.get("negative"):
            continue
        for side, role in (("positive", "prompt"), ("negative", "negative_prompt")):
            nodes = [inputs[side]] if side in inputs else []
            for _ in range(4):
                for node in nodes:
                    if "text" in graph[node]["inputs"]:
                        roles.setdefault(node, role)
                nodes = [source for node in nodes for name, source in feeding.get(node, ()) if name in ("conditioning", "text", side)][:20]
    return roles


def _named(graph: Graph, items: list[ExposedInput]) -> list[ExposedInput]:
    """Plain names where they are unique; else with the node's title or class; else with its id as well."""
    for attempt in range(3):
        uses: dict[str, int] = {}
        for one in items:
            uses[one.name] = uses.get(one.name, 0) + 1
        if all(count == 1 for count in uses.values()):
            break
        items = [_renamed(one, graph[one.node], attempt) if uses[one.name] > 1 else one for one in items]
    return items


def _renamed(one: ExposedInput, node: Mapping[str, Any], attempt: int) -> ExposedInput:
    title = (node.get("_meta") or {}).get("title") if attempt == 0 else None
    words = [title or node.get("class_type") or "node", *([one.node] if attempt == 2 else []), one.input]
    name = _slug("_".join(words))
    return ExposedInput.load({**one.dump(), "name": name, "title": _human(name)})


def _slug(text: str) -> str:
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z])", "_", text)
    slug = re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")
    return (slug if slug[:1].isalpha() else f"input_{slug}".rstrip("_"))[:60]


def _human(name: str) -> str:
    return re.sub(r"[_\s.]+", " ", name).strip().capitalize()[:120]


def _check_names(items: list[ExposedInput]) -> None:
    if len(items) > MAX_EXPOSED:
        raise Invalid("expose_too_many", f"{len(items)} inputs are exposed; at most {MAX_EXPOSED} are accepted.", "Expose what customers really set.")
    names: set[str] = set()
    places: set[tuple[str, str]] = set()
    for one in items:
        if not NAME.fullmatch(one.name):
            raise Invalid(
                "expose_bad_name",
                f"{one.name[:80]!r} cannot name an input.",
                "Start with a small letter and use small letters, digits and underscores.",
                details={"name": one.name[:80]},
            )
        if one.name in names:
            raise Invalid(
                "expose_duplicate_name",
                f"Two inputs are called {one.name}.",
                f"Name one of them: {one.node}.{one.input}=OTHER_NAME.",
                details={"name": one.name},
            )
        if (one.node, one.input) in places:
            raise Invalid(
                "expose_duplicate_input", f"Input {one.node}.{one.input} is exposed twice.", "Expose it once.", details={"node": one.node, "input": one.input}
            )
        names.add(one.name)
        places.add((one.node, one.input))
