"""The files of ComfyUI and of packs, as they go into a build: read from git's object database or a registry's archive.

Nothing is checked out, so no hook, filter or attribute of theirs acts. Paths and links that would leave the tree are refused.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import signal
import subprocess
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from builds.locking.repositories import Tree
from builds.locking.running import TooMuch, TooSlow, environment, run
from builds.locking.sources import follows_redirects
from controlplane.kernel.errors import Invalid, Unavailable

MAX_FILES = 60_000
MAX_LIST = 32_000_000
MAX_BYTES = 1_500_000_000
_SUBMODULE, _LINK, _EXECUTABLE = "160000", "120000", "100755"


@dataclass(frozen=True)
class File:
    """One file; with `link`, a symbolic link to that relative path."""

    path: str
    data: bytes = b""
    executable: bool = False
    link: str = ""


def of_commit(tree: Tree, *, name: str) -> Iterator[File]:
    """Every file of a commit, by path. Submodules are left out. Raises Invalid `source_refused`, Unavailable `source_incomplete`."""
    listed = _listed(tree, name)
    process = subprocess.Popen(
        _git(tree, "cat-file", "--batch"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(), start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    # All names at once, from a thread: asking one by one would wait for an answer a thousand times.
    asking = threading.Thread(target=_ask, args=(process.stdin, [sha for _, sha, _ in listed]), daemon=True)
    asking.start()
    taken = 0
    try:
        for mode, _, path in listed:
            data = _blob(process.stdout, name, path)
            taken += len(data)
            if taken > MAX_BYTES:
                raise _refused(name, f"it is larger than {MAX_BYTES:,} bytes")
            if mode == _LINK:
                yield File(path, link=_inside(name, path, data.decode("utf-8", "replace")))
            else:
                yield File(path, data, executable=mode == _EXECUTABLE)
    finally:
        # With the git that it may have started to fetch a big file.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        asking.join()
        process.stdout.close()
        process.wait()


def _ask(stream: IO[bytes], names: list[str]) -> None:
    with contextlib.suppress(OSError), stream:
        stream.write("".join(f"{name}\n" for name in names).encode())


def submodules(tree: Tree, *, name: str) -> list[str]:
    """Paths of submodules, which are not part of a commit's own files."""
    return [path for mode, _, path in _listed(tree, name, submodules=True) if mode == _SUBMODULE]


def of_archive(data: bytes, *, name: str) -> Iterator[File]:
    """Every file of a zip or tar archive, by path; a single directory around everything is taken off."""
    files = sorted(_zip(data, name) if zipfile.is_zipfile(io.BytesIO(data)) else _tar(data, name), key=lambda f: f.path)
    tops = {f.path.partition("/")[0] for f in files}
    wrapped = f"{tops.pop()}/" if len(tops) == 1 and all("/" in f.path for f in files) else ""
    for file in files:
        yield File(file.path.removeprefix(wrapped), file.data, file.executable)


def _zip(data: bytes, name: str) -> Iterator[File]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            if len(entries) > MAX_FILES or sum(e.file_size for e in entries) > MAX_BYTES:
                raise _refused(name, "it holds too much")
            for entry in entries:
                yield File(checked(name, entry.filename.replace("\\", "/")), archive.read(entry), executable=bool(entry.external_attr >> 16 & 0o100))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise _refused(name, "its archive is damaged, encrypted or packed in an unknown way") from error


def _tar(data: bytes, name: str) -> Iterator[File]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            count = size = 0
            for member in archive:
                count, size = count + 1, size + member.size
                if count > MAX_FILES or size > MAX_BYTES:
                    raise _refused(name, "it holds too much")
                if member.isfile():
                    stream = archive.extractfile(member)
                    yield File(checked(name, member.name.removeprefix("./")), stream.read() if stream else b"", executable=bool(member.mode & 0o100))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _refused(name, "its archive is neither zip nor tar, or damaged") from error


def checked(name: str, path: str) -> str:
    """`path`, when it is a plain relative path. Raises Invalid `source_refused`."""
    parts = path.split("/")
    if not path or path.startswith("/") or len(path) > 400 or any(part in ("", ".", "..") or len(part.encode()) > 250 for part in parts):
        raise _refused(name, f"the path {path[:120]!r} leads out of it")
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise _refused(name, f"the path {path[:120]!r} holds control characters")
    return path


def _listed(tree: Tree, name: str, *, submodules: bool = False) -> list[tuple[str, str, str]]:
    try:
        # Trees that hold each other ten times over stand for more files than any memory holds.
        said = run(_git(tree, "ls-tree", "-r", "-z", "--full-tree", tree.commit), timeout_s=120, env=_guarded(), max_output=MAX_LIST, max_file=MAX_LIST + 1)
    except (TooMuch, TooSlow) as error:
        raise _refused(name, f"it has more than {MAX_FILES:,} files") from error
    if said.code:
        raise _incomplete(name, tree.commit)
    found = []
    for line in said.out.decode("utf-8", "surrogateescape").split("\0"):
        if line:
            head, _, path = line.partition("\t")
            mode, _, sha = head.split(" ")
            if submodules or mode != _SUBMODULE:
                found.append((mode, sha, checked(name, path)))
    if len(found) > MAX_FILES:
        raise _refused(name, f"it has more than {MAX_FILES:,} files")
    return sorted(found, key=lambda entry: entry[2])


def _blob(stream: IO[bytes], name: str, path: str) -> bytes:
    head = stream.readline().split()
    if len(head) != 3 or head[1] != b"blob":
        raise _incomplete(name, path)
    size = int(head[2])
    if size > MAX_BYTES:
        raise _refused(name, f"{path[:120]} is larger than {MAX_BYTES:,} bytes")
    data = stream.read(size + 1)
    if len(data) != size + 1:
        raise _incomplete(name, path)
    return data[:-1]


def _inside(name: str, path: str, target: str) -> str:
    """A link's target, when it stays in the tree."""
    landing = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target or target.startswith("/") or landing.startswith("../") or landing == ".." or "\0" in target:
        raise _refused(name, f"the link {path[:120]!r} leads out of it")
    return target


def _git(tree: Tree, *arguments: str) -> list[str]:
    settings: tuple[str, ...] = ("safe.directory=*", "core.hooksPath=/dev/null", "core.fsmonitor=false", "credential.helper=", "gc.auto=0")
    # The same rules as when the commit was fetched: no way into another network, and no server that holds us for ever.
    settings += (f"http.followRedirects={'initial' if follows_redirects(tree.repository) else 'false'}", "http.lowSpeedLimit=1000", "http.lowSpeedTime=30")
    return ["git", *(part for setting in settings for part in ("-c", setting)), f"--git-dir={tree.git_dir}", *arguments]


def _environment() -> dict[str, str]:
    return environment() | _guarded()


def _guarded() -> dict[str, str]:
    # Big files were left out when the commit was fetched for its lock: git gets them here, from the same address.
    return {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file", "LC_ALL": "C"}


def _refused(name: str, why: str) -> Invalid:
    return Invalid("source_refused", f"{name[:200]} cannot go into an image: {why}.", "Choose another commit or pack.", details={"source": name[:200]})


def _incomplete(name: str, what: str) -> Unavailable:
    return Unavailable(
        "source_incomplete",
        f"The repository of {name[:200]} lacks {what[:120]}.",
        "Complete the mirror (git fetch --unshallow --refetch), or point the setting at a whole one.",
        details={"source": name[:200], "missing": what[:300]},
    )
