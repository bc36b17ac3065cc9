"""Locks for tests: a whole, believable document that needs no network to make."""

from __future__ import annotations

from typing import Any

from builds.locking import document


def example(**changes: Any) -> document.Lock:
    """A lock of ComfyUI with one pack from git and one from the registry; `changes` replace whole parts."""
    return document.normal(
        {
            "platform": {"os": "linux", "arch": "amd64"},
            "python": {"version": "3.11", "as_of": "2025-10-12T04:28:01+00:00"},
            "base_image": {"reference": "debian:bookworm-slim", "digest": "sha256:" + "b" * 64},
            "comfyui": {"repository": "https://github.com/Comfy-Org/ComfyUI", "commit": "a125cd84b054a57729b5eecab930ca9408719832", "version": "0.3.64"},
            "packs": [
                {
                    "key": "https://github.com/example/comfyui-frames",
                    "repository": "https://github.com/example/comfyui-frames",
                    "commit": "1" * 40,
                    "folder": "comfyui-frames",
                    "install_script": True,
                    "classes": ["FrameJoin", "FrameSplit"],
                },
                {
                    "key": "cnr:comfyui-tones",
                    "registry_id": "comfyui-tones",
                    "version": "1.2.0",
                    "sha256": "2" * 64,
                    "folder": "comfyui-tones",
                    "classes": ["ToneCurve"],
                },
            ],
            "python_packages": [
                {"name": "torch", "version": "2.8.0", "hashes": ["sha256:" + "3" * 64], "asked_by": ["comfyui"], "layer": "torch"},
                {"name": "numpy", "version": "2.3.3", "hashes": ["sha256:" + "4" * 64, "sha256:" + "5" * 64], "asked_by": ["comfyui"], "layer": "torch"},
                {"name": "aiohttp", "version": "3.12.15", "hashes": ["sha256:" + "6" * 64], "asked_by": ["comfyui"], "layer": "comfyui"},
                {
                    "name": "colour-science",
                    "version": "0.4.6",
                    "hashes": ["sha256:" + "7" * 64],
                    "asked_by": ["cnr:comfyui-tones"],
                    "layer": "packs",
                },
            ],
            "constraints": ["numpy==2.3.3", "torch==2.8.0"],
            "torch": {"version": "2.8.0", "backend": "cpu"},
            "models": [
                {
                    "directory": "checkpoints",
                    "filename": "sd_xl_base_1.0.safetensors",
                    "sha256": "8" * 64,
                    "size_bytes": 6_938_078_334,
                    "urls": ["https://models.example.org/sd_xl_base_1.0.safetensors"],
                    "licence": "openrail++",
                }
            ],
            "classes": ["CheckpointLoaderSimple", "FrameJoin", "FrameSplit", "KSampler", "SaveImage", "ToneCurve"],
            **changes,
        }
    )
