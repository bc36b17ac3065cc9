"""The file that tells ComfyUI of a further models folder (--extra-model-paths-config). Pure, save that it lists the tree's own folders."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.agent.store.wanted import NOT_FOR_MODELS

# ComfyUI's own folders, with the older names of two of them: it maps both to one list.
KNOWN = (
    *("audio_encoders", "checkpoints", "classifiers", "clip", "clip_vision", "controlnet", "diffusers", "diffusion_models", "embeddings"),
    *("gligen", "hypernetworks", "latent_upscale_models", "loras", "model_patches", "photomaker", "style_models", "t2i_adapter"),
    *("text_encoders", "unet", "upscale_models", "vae", "vae_approx"),
)
_LISTED_AS = {"t2i_adapter": "controlnet"}


def document(models: Path, tree: Path) -> str:
    """JSON, which is YAML too: every folder under `models`, in front of the tree's folder of that name.

    Folders that only a node pack knows are taken from the tree, where packs make them.
    """
    try:
        own = [p.name for p in tree.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        own = []
    folders: dict[str, str] = {}
    for name in sorted({*KNOWN, *own} - set(NOT_FOR_MODELS)):
        listed = _LISTED_AS.get(name, name)
        folders[listed] = f"{folders[listed]}\n{name}" if listed in folders else name
    return json.dumps({"comfyplane": {"base_path": str(models), "is_default": True, **folders}}, ensure_ascii=False, indent=1)
