"""Small lists, canvases and facts to ask the dependency resolver about."""

from __future__ import annotations

import json
from typing import Any

from builds.dependencies import needs, spelling
from builds.dependencies.known import Claim, Facts, PackFact, Target

NODE_MAP: dict[str, Any] = {
    "https://github.com/comfyanonymous/ComfyUI": [["KSampler", "CLIPTextEncode", "FutureCoreNode"], {"title_aux": "ComfyUI"}],
    "https://github.com/Alpha/ComfyUI-Alpha.git": [["AlphaOne", "AlphaTwo", "Shared", "KSampler"], {"title_aux": "Alpha nodes"}],
    "https://github.com/beta/comfyui-beta/": [["BetaOne", "Shared"], {"title_aux": "Beta nodes", "nodename_pattern": r" \(beta\)$"}],
    "https://raw.githubusercontent.com/gamma/Gamma/main/gamma.py": [["GammaOne"], {"title_aux": "Gamma"}],
}
PACK_LIST: dict[str, Any] = {
    "custom_nodes": [
        {
            "title": "Alpha nodes",
            "author": "A",
            "reference": "https://github.com/alpha/comfyui-alpha",
            "files": ["https://github.com/Alpha/ComfyUI-Alpha"],
            "id": "alpha",
        },
        {"title": "Beta nodes", "author": "B", "reference": "https://github.com/beta/comfyui-beta", "files": ["https://github.com/beta/comfyui-beta"]},
    ]
}
MODEL_LIST: dict[str, Any] = {
    "models": [
        {
            "filename": "base.safetensors",
            "save_path": "checkpoints",
            "url": "https://models.example.com/base.safetensors",
            "base": "SDXL",
            "size": "6.9GB",
            "type": "checkpoint",
        },
        {
            "filename": "ink.safetensors",
            "save_path": "loras",
            "url": "https://models.example.com/ink.safetensors",
            "base": "SD1.5",
            "size": "144MB",
            "type": "lora",
        },
        {
            "filename": "twice.safetensors",
            "save_path": "loras",
            "url": "https://one.example.com/twice.safetensors",
            "base": "SDXL",
            "size": "1MB",
            "type": "lora",
        },
        {
            "filename": "twice.safetensors",
            "save_path": "loras",
            "url": "https://two.example.com/twice.safetensors",
            "base": "SDXL",
            "size": "1MB",
            "type": "lora",
        },
    ]
}
STATS: dict[str, Any] = {
    "https://github.com/Alpha/ComfyUI-Alpha": {"stars": 900, "last_update": "2025-04-07 09:23:31"},
    "https://github.com/beta/comfyui-beta": {"stars": 4, "last_update": "x"},
}
FILES = {"extension-node-map.json": NODE_MAP, "custom-node-list.json": PACK_LIST, "model-list.json": MODEL_LIST, "github-stats.json": STATS}


def files(**changed: Any) -> dict[str, bytes]:
    """The four lists as files."""
    return {name: json.dumps(document).encode() for name, document in {**FILES, **changed}.items()}


def node(number: int, kind: str, *, mode: int = 0, values: Any = None, **properties: Any) -> dict[str, Any]:
    """One canvas node."""
    return {"id": number, "type": kind, "mode": mode, "inputs": [], "outputs": [], "widgets_values": values or [], "properties": properties}


def canvas(*nodes: dict[str, Any], links: Any = (), **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": list(links), **more}


def wanted(*nodes: dict[str, Any], **more: Any) -> needs.Needs:
    """The needs of a canvas of these nodes."""
    return needs.of(graph=None, ui_graph=canvas(*nodes, **more))


def pack(name: str, **fields: Any) -> PackFact:
    repository = f"https://github.com/{name}/comfyui-{name}"
    return PackFact(**{"key": spelling.repository_key(repository), "repository": repository, "title": name.title(), "slug": f"comfyui-{name}", **fields})


def facts(*packs: PackFact, claims: dict[str, list[tuple[str, str]]] | None = None, core: tuple[str, ...] = (), **more: Any) -> Facts:
    """Facts in which `claims` maps a class to (pack name, evidence)."""
    by_name = {one.title.lower(): one for one in packs}
    said = {name: tuple(Claim(by_name[who].key, how) for who, how in found) for name, found in (claims or {}).items()}
    lists = ({"kind": "node_map", "sha256": "0" * 64, "entries": 1, "imported_at": ""},)
    return Facts(
        **{
            "target": Target("ComfyUI 9", "9.0", "a" * 64, 3),
            "core": frozenset(core),
            "packs": {one.key: one for one in packs},
            "claims": said,
            "lists": lists,
            **more,
        }
    )
