"""The four directories the engine may touch, and the rule that nothing leaves them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MODEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints",),
    "configs": ("configs",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "diffusers": ("diffusers",),
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "latent_upscale_models": ("latent_upscale_models",),
    "custom_nodes": ("custom_nodes",),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "classifiers": ("classifiers",),
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
}
MODEL_SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
AUDIO_SUFFIXES = {".flac", ".wav", ".ogg", ".mp3", ".opus", ".m4a", ".aiff"}

ANNOTATION = re.compile(r"^(?P<name>.*?)\s*\[(?P<kind>input|output|temp)\]$", re.DOTALL)


class OutsideDirectory(Exception):
    """A name points outside the directory it was meant for."""


@dataclass(frozen=True)
class Saved:
    """Where the next file of a prefix goes."""

    folder: Path
    stem: str
    counter: int
    subfolder: str


@dataclass(frozen=True)
class Directories:
    input: Path
    output: Path
    temp: Path
    models: Path

    def of(self, kind: str) -> Path | None:
        """The directory of a file type, or None when there is no such type."""
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(kind)

    def inside(self, base: Path, *names: str) -> Path:
        """A path under `base`; raises OutsideDirectory when links or dots lead out."""
        root = os.path.realpath(base)
        path = os.path.realpath(Path(root, *names))
        if path != root and not path.startswith(root + os.sep):
            raise OutsideDirectory("/".join(names))
        return Path(path)

    def annotated(self, name: str, *, default: str = "input") -> Path:
        """The path of `name`, which may end in [input], [output] or [temp]."""
        found = ANNOTATION.match(name)
        kind, plain = (found["kind"], found["name"]) if found else (default, name)
        base = self.of(kind)
        assert base is not None
        return self.inside(base, plain)

    def inputs(self, suffixes: set[str]) -> list[str]:
        """Names of the files directly in the input directory, sorted."""
        return sorted(entry.name for entry in _entries(self.input) if entry.is_file() and Path(entry.name).suffix.lower() in suffixes)

    def model_roots(self, folder: str) -> list[Path]:
        return [self.models / name for name in MODEL_FOLDERS.get(folder, ())]

    def model_files(self, folder: str) -> list[str]:
        """Names of the model files of a folder, relative to their root, sorted."""
        names: set[str] = set()
        for root in self.model_roots(folder):
            for path in root.rglob("*") if root.is_dir() else ():
                if path.is_file() and path.suffix.lower() in MODEL_SUFFIXES:
                    names.add(path.relative_to(root).as_posix())
        return sorted(names)

    def model_path(self, folder: str, name: str) -> Path | None:
        for root in self.model_roots(folder):
            try:
                path = self.inside(root, name)
            except OutsideDirectory:
                continue
            if path.is_file():
                return path
        return None

    def next_file(self, base: Path, prefix: str, *, width: int = 0, height: int = 0, now: datetime) -> Saved:
        """Where the next file of `prefix` goes; counters continue those on disk."""
        prefix = _expand(prefix, width=width, height=height, now=now)
        subfolder, stem = os.path.split(os.path.normpath(prefix))
        try:
            folder = self.inside(base, subfolder)
        except OutsideDirectory:
            wanted = os.path.normpath(base / subfolder)
            raise Exception(
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {wanted}\n         output_dir: {base}"
                f"\n         commonpath: {os.path.commonpath([str(base), wanted])}"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        numbered = re.compile(re.escape(stem) + r"_(\d+)(_|$)", re.IGNORECASE)
        taken = [int(m[1]) for e in _entries(folder) if (m := numbered.match(e.name))]
        return Saved(folder, stem, max(taken, default=0) + 1, subfolder)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _expand(prefix: str, *, width: int, height: int, now: datetime) -> str:
    values = {
        "width": str(width),
        "height": str(height),
        "year": f"{now.year}",
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }
    return re.sub(r"%(\w+)%", lambda m: values.get(m[1], m[0]), prefix)
