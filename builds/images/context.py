"""The build context: one tar with the Dockerfile, requirement files, the sources and the agent.

The same lock gives the same bytes: entries in one order, owner 0, fixed modes and times, so that BuildKit's cache holds
and layers are equal wherever they are built. No model weights: models of the lock are only named in lock.json.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from builds.images import dockerfile, requirements, trees
from builds.images.trees import File
from builds.locking import registry, repositories
from builds.locking import sources as places
from builds.locking.document import text as lock_text
from builds.locking.sources import Sources
from controlplane.kernel.errors import Invalid, Unavailable, WorkflowError

# Archives cannot say 1970 in every format; any fixed moment does.
MTIME = 946_684_800
MAX_ARCHIVE = 500_000_000
WEIGHTS = frozenset((".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".sft"))


@dataclass(frozen=True)
class Packed:
    """What went in: bytes and files by top-level name, and what was left out."""

    sha256: str
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write(document: Mapping[str, Any], *, text: str, sources: Sources, agent: Path, out: BinaryIO, say: Callable[[str], None] = lambda _: None) -> Packed:
    """Write the tar of a lock to `out`. `text` is its Dockerfile, `agent` the directory of the agent's package.

    Raises what opening the sources raises: NotFound `commit_gone`, Invalid `hash_mismatch`, `source_refused`,
    `repository_refused`, Unavailable `repository_unreachable`, `source_incomplete`.
    """
    sizes: dict[str, int] = {}
    notes: list[str] = []
    hashed = _Hashed(out)
    with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]

        def add(top: str, files: Iterable[File]) -> None:
            for file in files:
                sizes[top] = sizes.get(top, 0) + len(file.data)
                _add(tar, f"{top}/{file.path}" if top else file.path, file)

        add("", [File("Dockerfile", text.encode())])
        add("requirements", (File(name, content.encode()) for name, content in requirements.files(document["python_packages"]).items()))
        comfyui = document["comfyui"]
        say(f"reading ComfyUI at {str(comfyui['commit'])[:12]}")
        tree = repositories.open_tree(
            places.comfyui_address(sources, comfyui["repository"]), comfyui["commit"], sources=sources, repository=comfyui["repository"]
        )
        add("comfyui", _without_weights(trees.of_commit(tree, name="ComfyUI"), notes))
        for pack in document["packs"]:
            say(f"reading pack {pack['key']}")
            add(f"packs/{dockerfile.folder(pack)}", _pack(pack, sources, notes))
        add("agent", agent_files(agent))
        add("", [File("lock.json", lock_text(document).encode())])
    return Packed(hashed.digest(), sizes, notes)


def agent_files(package: Path) -> Iterator[File]:
    """The agent's Python files, as the package `fleet.agent`; `fleet` itself is empty there."""
    yield File("fleet/__init__.py")
    for path in sorted(package.rglob("*.py")):
        yield File(f"fleet/agent/{path.relative_to(package).as_posix()}", path.read_bytes())


def agent_version(package: Path) -> str:
    """A word for exactly this agent, for the image's label."""
    digest = hashlib.sha256()
    for file in agent_files(package):
        digest.update(f"{file.path}\0{len(file.data)}\0".encode() + file.data)
    return digest.hexdigest()[:12]


def _without_weights(files: Iterator[File], notes: list[str]) -> Iterator[File]:
    """What lies in models/ of a source tree that somebody also works in has no place in an image: workers fetch weights by hash."""
    for file in files:
        if file.path.startswith("models/") and Path(file.path).suffix.lower() in WEIGHTS:
            notes.append(f"ComfyUI: {file.path[:200]} is not part of the image; workers fetch models by hash")
        else:
            yield file


def _pack(pack: Mapping[str, Any], sources: Sources, notes: list[str]) -> Iterator[File]:
    key = str(pack["key"])
    if pack.get("commit"):
        repository = str(pack["repository"])
        tree = repositories.open_tree(places.pack_address(sources, repository), pack["commit"], sources=sources, repository=repository)
        for path in trees.submodules(tree, name=key):
            notes.append(f"{key}: the submodule {path} is not part of the image")
        return trees.of_commit(tree, name=key)
    data = _archive(pack, sources)
    if pack.get("sha256") and hashlib.sha256(data).hexdigest() != pack["sha256"]:
        raise Invalid(
            "hash_mismatch",
            f"The archive of {key[:120]} {str(pack.get('version'))[:40]} is not the one that was locked.",
            "Make the lock again if the new archive is to be trusted; otherwise find out who changed it.",
            details={"pack": key[:300], "expected": pack["sha256"], "received": hashlib.sha256(data).hexdigest()},
        )
    return trees.of_archive(data, name=key)


def _archive(pack: Mapping[str, Any], sources: Sources) -> bytes:
    """The bytes of a registry archive: from the mirror's ID-VERSION.zip, else as the lock's making had them, or from the registry."""
    name, version = str(pack.get("registry_id") or ""), str(pack.get("version") or "")
    if sources.pack_mirror and "://" not in sources.pack_mirror:
        for suffix in (".zip", ".tar.gz"):
            path = Path(sources.pack_mirror) / trees.checked(name, f"{name}-{version}{suffix}")
            if path.is_file() and path.stat().st_size <= MAX_ARCHIVE:
                return path.read_bytes()
    try:
        return registry.archive(name, version, sources=sources).path.read_bytes()
    except (WorkflowError, OSError) as error:
        raise Unavailable(
            "archive_unreachable",
            f"The registry does not give {name[:80]} {version[:40]}.",
            f"Try again, or put {name[:80]}-{version[:40]}.zip into PACK_MIRROR.",
            details={"reason": str(getattr(error, "message", error))[:300]},
        ) from error


def _add(tar: tarfile.TarFile, path: str, file: File) -> None:
    entry = tarfile.TarInfo(path)
    entry.mtime = MTIME
    entry.mode = 0o755 if file.executable else 0o644
    if file.link:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, file.link, 0o777
        tar.addfile(entry)
        return
    entry.size = len(file.data)
    tar.addfile(entry, io.BytesIO(file.data))


class _Hashed:
    """A stream that hashes what goes through it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._sha = out, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha.update(data)
        return self._out.write(data)

    def digest(self) -> str:
        return self._sha.hexdigest()
