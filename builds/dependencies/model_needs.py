"""The model files one node asks for: loader inputs, lists and tables inside widgets, embeddings in texts, the canvas's own links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from builds.dependencies import folders, spelling
from builds.links import literal
from builds.nodespecs import NodeSpec

MAX_PER_NODE = 200
MAX_DEPTH = 6
# As ComfyUI's tokenizer reads it: the word runs to the next blank, comma, colon of a weight, or bracket (comfy/sd1_clip.py, `embedding_identifier`).
_EMBEDDING = re.compile(r"(?:^|[\s,(\[{|:])embedding:([^\s,:()\[\]{}|<>\"]{1,200})", re.IGNORECASE)
# `<lora:name:0.8>` is read by several packs' text nodes.
_TAG = re.compile(r"<lora:([^:<>\n]{1,200})(?::[^<>\n]{0,40})?>", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_OFF = ("on", "enabled", "enable", "active")


@dataclass(frozen=True)
class ModelNeed:
    """A model file that a node asks for. `is_declared`: the canvas names it beside the node and no input was read;
    `any_suffix`: its ending is left to the loader; `asleep`: the node is muted or bypassed."""

    name: str
    node: str
    class_type: str
    input: str
    directory: str = ""
    url: str = ""
    sha256: str = ""
    is_declared: bool = False
    any_suffix: bool = False
    asleep: bool = False

    def with_facts(self, declared: ModelNeed) -> ModelNeed:
        """The loader's need with what the canvas declares of the same file."""
        return replace(self, directory=declared.directory or self.directory, url=declared.url, sha256=declared.sha256)


def in_inputs(node: str, class_type: str, inputs: Mapping[str, Any], spec: NodeSpec | None) -> list[ModelNeed]:
    """Every file named by the values of a node, in order."""
    found: dict[tuple[str, str], ModelNeed] = {}
    for name, raw in inputs.items():
        declared = spec.inputs.get(name) if spec else None
        if declared is not None and declared.upload:
            continue
        for need in _of_value(node, class_type, str(name), literal(raw), declared):
            if len(found) >= MAX_PER_NODE:
                return list(found.values())
            found.setdefault((need.name, need.input), need)
    return list(found.values())


def declared(node: str, class_type: str, models: Any) -> list[ModelNeed]:
    """What `properties.models` of a canvas node says."""
    found = []
    for one in models[:MAX_PER_NODE] if isinstance(models, list) else ():
        name = one.get("name") if isinstance(one, Mapping) else None
        if not isinstance(name, str) or not name.strip() or len(name) > 300:
            continue
        digest = one.get("hash")
        is_sha256 = str(one.get("hash_type", "")).upper().replace("-", "") == "SHA256" and isinstance(digest, str) and _SHA256.fullmatch(digest)
        found.append(
            ModelNeed(
                spelling.model_path(name),
                node,
                class_type,
                "properties.models",
                folders.canonical(one.get("directory")),
                web_address(one.get("url")),
                str(digest).lower() if is_sha256 else "",
                is_declared=True,
            )
        )
    return found


def web_address(value: Any) -> str:
    """An http(s) address of bounded length without credentials, or empty."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")) or len(value) > 1_000:
        return ""
    return "" if re.search(r"[\x00-\x20\x7f\\]", value) or "@" in value.partition("://")[2].partition("/")[0] else value


def _of_value(node: str, class_type: str, name: str, value: Any, declared: Any) -> Iterator[ModelNeed]:
    if isinstance(value, str):
        yield from _of_text(node, class_type, name, value, declared)
        return
    if not isinstance(value, Mapping | list | tuple) or _is_link(value):
        return
    pending: list[tuple[str, Any, int]] = [(name, value, 0)]
    while pending:
        path, inner, depth = pending.pop(0)
        if isinstance(inner, str):
            if folders.is_file_name(inner):
                yield _need(node, class_type, path, inner)
            else:
                yield from _in_text(node, class_type, path, inner)
        elif depth >= MAX_DEPTH or len(pending) > 2_000:
            continue
        elif isinstance(inner, Mapping):
            if any(inner.get(key) is False for key in _OFF):
                continue
            pending = [*((f"{path}.{key}", one, depth + 1) for key, one in inner.items()), *pending]
        elif isinstance(inner, list | tuple):
            pending = [*((f"{path}.{at}", one, depth + 1) for at, one in enumerate(inner)), *pending]


def _of_text(node: str, class_type: str, name: str, value: str, declared: Any) -> Iterator[ModelNeed]:
    if folders.is_file_name(value):
        if name.rpartition(".")[2] not in ("filename_prefix", "filename", "url"):
            yield _need(node, class_type, name, value)
    elif folders.is_loader_input(class_type, name, declared) and not folders.is_no_file(value):
        if value in folders.TAESD:
            for part in ("encoder", "decoder"):
                yield ModelNeed(f"{value}_{part}", node, class_type, name, "vae_approx", any_suffix=True)
        elif len(value) <= 300 and "\n" not in value and not _is_plain_choice(value, declared):
            yield _need(node, class_type, name, value)
    else:
        yield from _in_text(node, class_type, name, value)


def _is_plain_choice(value: str, declared: Any) -> bool:
    """Whether a value without a file's ending is one of the node's own words: its fixed choices list it, and files too."""
    options = getattr(declared, "options", None) or ()
    return value in options and any(folders.is_file_name(option) for option in options)


def _in_text(node: str, class_type: str, name: str, value: str) -> Iterator[ModelNeed]:
    lowered = value.lower()
    if "embedding:" in lowered:
        for match in _EMBEDDING.finditer(value):
            word = match.group(1).rstrip(".;!?")
            if word:
                yield ModelNeed(spelling.model_path(word), node, class_type, name, "embeddings", any_suffix=not folders.is_file_name(word))
    if "<lora:" in lowered:
        for match in _TAG.finditer(value):
            word = match.group(1).strip()
            if word:
                yield ModelNeed(spelling.model_path(word), node, class_type, name, "loras", any_suffix=not folders.is_file_name(word))


def _need(node: str, class_type: str, name: str, value: str) -> ModelNeed:
    return ModelNeed(spelling.model_path(value), node, class_type, name, folders.of_input(class_type, name))


def _is_link(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int) and not isinstance(value[1], bool)
