"""A model as the control plane names it, taken apart with suspicion: every field may come from a stranger's graph. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fleet.agent.store.failures import Refused

MAX_MODELS = 200
MAX_URLS = 16
MAX_URL = 4000
MAX_NAME = 240
MAX_DEPTH = 6
# Folders of a ComfyUI tree whose files are run or steer it, not weights.
NOT_FOR_MODELS = ("custom_nodes", "configs")
PICKLES = (".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".pickle", ".joblib")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
_BAD_CHARACTERS = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]')


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model file: its bytes by hash, its name for the engine, where it may be fetched, in order."""

    sha256: str
    directory: str
    filename: str
    size_bytes: int | None = None
    urls: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.directory}/{self.filename}"

    @property
    def folder(self) -> str:
        """The engine's folder, e.g. `loras` of `loras/flux`."""
        return self.directory.split("/", 1)[0]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.filename).suffix.lower()


def parse(models: Any) -> list[Wanted]:
    """The models of an assignment. Raises Refused for the first that cannot be used; equal entries are one."""
    if not isinstance(models, list) or len(models) > MAX_MODELS:
        raise Refused(f"The assignment's models must be a list of at most {MAX_MODELS}.")
    found: dict[tuple[str, str], Wanted] = {}
    for entry in models:
        one = _one(entry)
        other = found.setdefault((one.directory.lower(), one.filename.lower()), one)
        if other.sha256 != one.sha256 or other.name != one.name:
            raise Refused(f"Two different models are called {one.name}.", "Give each model of the workflow its own name.", model=one.name)
    return list(found.values())


def _one(entry: Any) -> Wanted:
    if not isinstance(entry, Mapping):
        raise Refused("A model of the assignment is no object.")
    directory = safe_path(entry.get("directory"), "directory")
    filename = safe_path(entry.get("filename"), "filename")
    if directory.split("/", 1)[0].lower() in NOT_FOR_MODELS:
        raise Refused(f"Models are never put into {directory}.", "Name a folder of weights, such as checkpoints or loras.", directory=directory)
    size = entry.get("size_bytes")
    if size is not None and (type(size) is not int or size < 0):
        raise Refused(f"The size of {filename} is no number of bytes.", model=filename)
    return Wanted(sha256_of(entry.get("sha256"), filename), directory, filename, size or None, urls_of(entry.get("urls")))


def sha256_of(value: Any, name: str = "the model") -> str:
    """A SHA-256 in lower case. Raises Refused."""
    text = str(value or "").strip().lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(text):
        raise Refused(f"{name} has no SHA-256, so nobody can tell whether the right file came.", "Lock the version again with the model's SHA-256.", model=name)
    return text


def urls_of(value: Any) -> tuple[str, ...]:
    """Addresses in order, each once."""
    given: Iterable[Any] = value if isinstance(value, list | tuple) else ()
    return tuple(dict.fromkeys(url for url in given if isinstance(url, str) and 0 < len(url) <= MAX_URL))[:MAX_URLS]


def safe_path(value: Any, what: str) -> str:
    """A relative path of plain names. Raises Refused for path tricks, absolute paths, device names and hidden files."""
    shown = str(value)[:80]
    if not isinstance(value, str) or not value or len(value) > MAX_NAME:
        raise Refused(f"A model's {what} is missing or longer than {MAX_NAME} characters.", field=what)
    if _BAD_CHARACTERS.search(value):
        raise Refused(f"The {what} {shown!r} holds characters that no model name may have.", "Use letters, digits, dots, dashes and /.", field=what)
    parts = value.split("/")
    if len(parts) > MAX_DEPTH:
        raise Refused(f"The {what} {shown!r} is nested more than {MAX_DEPTH} folders deep.", field=what)
    for part in parts:
        if part in ("", ".", "..") or part.startswith((".", "~", "-")) or part != part.strip() or part.endswith("."):
            raise Refused(f"The {what} {shown!r} is no plain relative path.", "Use a path such as flux/style.safetensors.", field=what)
        if _DEVICES.fullmatch(part.split(".", 1)[0].rstrip()) or len(part.encode()) > 255:
            raise Refused(f"The {what} {shown!r} holds a reserved or overlong name.", "Rename the model.", field=what)
    return value
