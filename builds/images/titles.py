"""What a step is, in a few words for people, and which layer of the image it stands for. Pure."""

from __future__ import annotations

import re

_STAGED = re.compile(r"\[(?:([A-Za-z0-9_.-]+) )?\d+/\d+\] ([A-Z]+) (.*)")
_PACK = re.compile(r"(?:packs/|custom_nodes/)([A-Za-z0-9._-]+)/")
_PACKAGES = {"torch": "torch", "comfyui": "Python packages of ComfyUI and the agent", "packs": "Python packages of the packs"}


def title(name: str) -> str:
    """The step's title; its own text where nothing better is known."""
    found = _STAGED.match(name)
    if found is None:
        return {"exporting to image": "Write the image"}.get(name, name)
    stage, verb, rest = found[1] or "", found[2], found[3]
    if verb == "FROM":
        return "Base image"
    layer = stage.removesuffix("-packages")
    if stage.endswith("-packages"):
        return f"Install {_PACKAGES.get(layer, layer)}"
    if verb == "RUN" and "apt-get" in rest:
        return "Debian packages" if stage == "os" else "Tools for installing"
    pack = _PACK.search(rest)
    if stage.startswith("pack-"):
        return f"install.py of {pack[1]}" if verb == "RUN" and pack else f"Prepare {pack[1]}" if pack else "Prepare a pack"
    by_stage = {"os": "User without rights", "tools": "Python environment", "comfyui": "Source of ComfyUI", "agent": "Source of the agent"}
    if stage in by_stage:
        return (
            f"Compile {stage.replace('comfyui', 'ComfyUI').replace('agent', 'the agent')}"
            if stage in ("comfyui", "agent") and verb == "RUN"
            else by_stage[stage]
        )
    if verb == "RUN" and "/models" in rest:
        return "Layer: folders for models"
    return _layer(rest, pack) or f"{verb} {rest}"


def _layer(rest: str, pack: re.Match[str] | None) -> str:
    source = re.match(r"--from=([a-z0-9-]+) ", rest)
    if pack is not None:
        return f"Layer: pack {pack[1]}"
    if source is not None:
        known = {"tools": "Python", "comfyui": "ComfyUI", "agent": "agent"}
        name = source[1]
        return f"Layer: {known.get(name) or _PACKAGES.get(name.removesuffix('-packages'), name)}"
    return "Layer: workflow (lock)" if rest.startswith("lock.json") else "Work directory" if rest.startswith("/") else ""
