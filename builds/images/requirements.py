"""The freeze of a lock as requirement files, one per image layer, every line with its hashes.

Pure. Packages from git have no hashes (their commit stands for them), and pip refuses to mix both kinds in one call:
they get a file of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.kernel.errors import Invalid

LAYERS = ("torch", "comfyui", "packs")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.+!_-]+")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_URL = re.compile(r"(?:git\+)?https?://[^\s'\"\\#]+(?:#[^\s'\"\\]*)?")
_MARKER = re.compile(r"[A-Za-z0-9_ .,'\"()<>=!~-]*")
_TORCH = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch-triton.*|nvidia-.*|cuda-.*)")


def files(packages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Text by file name, "torch.txt" … "packs-git.txt"; files that would be empty are left out. Raises Invalid."""
    lines: dict[str, list[str]] = {}
    for package in sorted(packages, key=lambda p: (str(p.get("name")), str(p.get("version")), str(p.get("marker")))):
        from_git = str(package.get("url") or "").startswith("git+")
        lines.setdefault(f"{layer(package)}{'-git' if from_git else ''}.txt", []).append(line(package))
    return {name: "\n".join(found) + "\n" for name, found in sorted(lines.items())}


def layer(package: Mapping[str, Any]) -> str:
    """The layer a package goes to: what the lock says, else by its name."""
    said = package.get("layer")
    if said in LAYERS:
        return str(said)
    return "torch" if _TORCH.fullmatch(str(package.get("name", "")).lower()) else "packs"


def line(package: Mapping[str, Any]) -> str:
    """One requirement. Raises Invalid for what pip could read as something else than a pinned package."""
    name, version, url = (str(package.get(field) or "") for field in ("name", "version", "url"))
    marker, hashes = str(package.get("marker") or ""), [str(h) for h in package.get("hashes") or ()]
    if not _NAME.fullmatch(name):
        raise _malformed(name, "its name is none")
    if url and not _URL.fullmatch(url):
        raise _malformed(name, "its address is none")
    if not url and not _VERSION.fullmatch(version):
        raise _malformed(name, "it has no exact version")
    if not _MARKER.fullmatch(marker):
        raise _malformed(name, "its marker is none")
    if not all(_HASH.fullmatch(h) for h in hashes):
        raise _malformed(name, "a hash is not sha256:… in hexadecimal")
    if not hashes and not url.startswith("git+"):
        raise _malformed(name, "it has no hash")
    wanted = f"{name} @ {url}" if url else f"{name}=={version}"
    if marker:
        wanted += f" ; {marker}"
    return " \\\n    ".join([wanted, *(f"--hash={h}" for h in sorted(hashes))])


def _malformed(name: str, why: str) -> Invalid:
    return Invalid(
        "lock_malformed", f"The lock's Python package {name[:80]!r} cannot be installed: {why}.", "Make the lock again.", details={"package": name[:80]}
    )
