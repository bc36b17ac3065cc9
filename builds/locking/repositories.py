"""Read git repositories without running anything of theirs: which commit a name means, and single files at a commit.

Mirrors on this machine are read where they are; others are fetched into a bare cache, one commit deep. Nothing is
ever checked out: files come from the object database, so hooks, filters and submodules never act.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from builds.locking import sources as places
from builds.locking.document import COMMIT
from builds.locking.running import Said, TooMuch, TooSlow, run
from builds.locking.sources import Sources
from controlplane.kernel.errors import Invalid, NotFound, Unavailable, WorkflowError

MAX_TEXT = 1_000_000
MAX_PACKED = 2_000_000_000
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
STALE_S = 3600.0
_AGAIN = "Try again later, or set up a mirror (BUILD_PACK_MIRROR; for ComfyUI BUILD_COMFYUI_SOURCE)."


@dataclass(frozen=True)
class Tree:
    """The files of one commit."""

    git_dir: Path
    commit: str
    committed_at: datetime
    repository: str

    def read(self, path: str) -> str | None:
        """A text file of at most a megabyte; None when there is none of that name."""
        said = _git(["cat-file", "blob", f"{self.commit}:{path}"], git_dir=self.git_dir, max_output=MAX_TEXT)
        return said.out.decode("utf-8-sig", "replace") if said.code == 0 else None

    def names(self) -> list[str]:
        """What lies at the top."""
        said = _git(["ls-tree", "--name-only", "-z", self.commit], git_dir=self.git_dir, max_output=MAX_TEXT)
        return [name.decode("utf-8", "replace") for name in said.out.split(b"\0") if name]


def open_tree(address: str, ref: str, *, sources: Sources, repository: str = "") -> Tree:
    """The tree that `ref` (full or short commit, tag, branch, or "" for the default branch) means at `address` now.

    Raises NotFound `commit_gone`, `ref_unknown`; Invalid `ref_refused`, `commit_ambiguous`, `repository_refused`;
    Unavailable `repository_unreachable`.
    """
    name = repository or address
    if ref and (not _REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/", "."))):
        raise Invalid("ref_refused", f"{ref[:80]!r} is not a commit, tag or branch.", "Give 40 hex digits, or the name of a tag or branch.")
    local = _local(address)
    if local is not None:
        return _tree(local, _local_commit(local, ref, name), name)
    with _cached(address, sources) as git_dir:
        commit = ref.lower() if COMMIT.fullmatch(ref.lower()) else _remote_commit(address, git_dir, ref, name, sources)
        if not _has(git_dir, commit):
            _fetch(address, git_dir, commit, name, sources)
        return _tree(git_dir, commit, name)


def version_commit(address: str, version: str, *, sources: Sources, repository: str = "") -> str:
    """The commit that released `version`: its tag, else the change that wrote it into pyproject.toml; "" when neither is there."""
    for tag in (f"v{version}", version):
        with contextlib.suppress(NotFound, Invalid):
            return open_tree(address, f"refs/tags/{tag}", sources=sources, repository=repository).commit
    local = _local(address)
    if local is not None:
        return _release(local, version)
    with _cached(address, sources) as git_dir:
        _fetch_all(address, git_dir, repository or address, sources)
        return _release(git_dir, version)


def _release(git_dir: Path, version: str) -> str:
    listed = _git(["log", "--all", "--format=%H", "--max-count=2000", "--", "pyproject.toml"], git_dir=git_dir, max_output=MAX_TEXT)
    written = re.compile(rf"^\s*version\s*=\s*[\"']{re.escape(version)}[\"']", re.M)
    found = ""
    # Newest first: the oldest of the unbroken run that carries the version is the one that released it.
    for commit in listed.out.decode().split():
        said = _git(["cat-file", "blob", f"{commit}:pyproject.toml"], git_dir=git_dir, max_output=MAX_TEXT)
        if said.code == 0 and written.search(said.out.decode("utf-8", "replace")):
            found = commit
        elif found:
            break
    return found


def _local(address: str) -> Path | None:
    path = Path(address.removeprefix("file://"))
    if "://" in address and not address.startswith("file://"):
        return None
    for git_dir in (path / ".git", path):
        if (git_dir / "HEAD").is_file() and (git_dir / "objects").is_dir():
            return git_dir
    raise Unavailable("repository_unreachable", f"There is no git repository at {address[:200]}.", "Check the path of the mirror.")


def _local_commit(git_dir: Path, ref: str, name: str) -> str:
    # As a branch or tag first: a branch may be called like a short commit.
    spellings = [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/remotes/origin/{ref}", ref] if ref else ["HEAD"]
    if COMMIT.fullmatch(ref.lower()):
        spellings = [ref.lower()]
    for spelling in spellings:
        said = _git(["rev-parse", "--verify", "--end-of-options", f"{spelling}^{{commit}}"], git_dir=git_dir)
        if said.code == 0:
            return said.out.decode().strip()
        if "ambiguous" in said.err and spelling == ref:
            raise Invalid("commit_ambiguous", f"{ref} is the start of several commits of {name[:200]}.", "Give all 40 digits.")
    raise _unknown(ref, name)


def _remote_commit(address: str, git_dir: Path, ref: str, name: str, sources: Sources) -> str:
    if ref.startswith("refs/"):
        wanted = [ref, f"{ref}^{{}}"]
    else:
        wanted = [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}"] if ref else ["HEAD"]
    said = _network(["ls-remote", "--quiet", "--", address, *wanted], address=address, git_dir=git_dir, name=name, sources=sources)
    found = {line.split("\t")[1]: line.split("\t")[0] for line in said.out.decode("utf-8", "replace").splitlines() if "\t" in line}
    # A tag's object is not its commit; the line with ^{} is.
    for spelling in sorted(wanted, key=lambda one: not one.endswith("^{}")):
        if COMMIT.fullmatch(found.get(spelling, "")):
            return found[spelling]
    if not _SHORT.fullmatch(ref.lower()):
        raise _unknown(ref, name)
    _fetch_all(address, git_dir, name, sources)
    return _local_commit(git_dir, ref.lower(), name)


def _fetch(address: str, git_dir: Path, commit: str, name: str, sources: Sources) -> None:
    try:
        _network(
            ["fetch", "--quiet", "--no-tags", "--depth=1", "--filter=blob:limit=1m", "origin", commit],
            address=address,
            git_dir=git_dir,
            name=name,
            sources=sources,
        )
    except WorkflowError as error:
        if error.code != "commit_gone":
            raise
        # Some servers give no single commit, only what branches and tags reach.
        _fetch_all(address, git_dir, name, sources)
    if not _has(git_dir, commit):
        raise _unknown(commit, name)


def _fetch_all(address: str, git_dir: Path, name: str, sources: Sources) -> None:
    deeper = ["--unshallow"] if (git_dir / "shallow").exists() else []
    refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remotes/origin/HEAD"]
    _network(["fetch", "--quiet", "--filter=blob:limit=1m", *deeper, "origin", *refs], address=address, git_dir=git_dir, name=name, sources=sources)


def _network(arguments: list[str], *, address: str, git_dir: Path, name: str, sources: Sources) -> Said:
    if sources.offline:
        raise Unavailable("repository_unreachable", f"{name[:200]} is not here, and nothing may be fetched.", "Set up a mirror (BUILD_PACK_MIRROR).")
    said = _git(
        arguments,
        git_dir=git_dir,
        timeout_s=sources.timeout_s,
        protocols=places.protocols(sources),
        redirects=places.follows_redirects(address),
        pinned=places.pinned(address, sources),
    )
    if said.code == 0:
        return said
    lowered = said.err.lower()
    if "not our ref" in lowered or "couldn't find remote ref" in lowered or "unadvertised object" in lowered:
        raise _unknown(arguments[-1], name)
    details = {"repository": name[:300], "git": said.err.strip()[-600:]}
    if "signal 25" in lowered or said.code == -25:  # SIGXFSZ
        message = f"{name[:200]} sends more than {MAX_PACKED:,} bytes."
        raise Invalid("repository_too_large", message, "Use a smaller pack, or set up a mirror (PACK_MIRROR).", details=details)
    if "no space left" in lowered:
        raise _cache_trouble("the disk is full")
    if "redirect" in lowered or "returned error: 30" in lowered:
        raise Unavailable("repository_moved", f"{name[:200]} has moved to another address.", "Give the new address.", details=details)
    if any(word in lowered for word in ("not found", "could not read username", "authentication failed", "403", "401")):
        raise NotFound(
            "repository_unknown", f"{name[:200]} does not exist, or is not public.", "Check the address; private packs come from a mirror.", details=details
        )
    raise Unavailable("repository_unreachable", f"{name[:200]} cannot be reached.", _AGAIN, details=details)


def _git(
    arguments: list[str],
    *,
    git_dir: Path,
    timeout_s: float = 60.0,
    protocols: tuple[str, ...] = (),
    redirects: bool = False,
    pinned: str = "",
    max_output: int = MAX_TEXT,
) -> Said:
    settings = {
        "safe.directory": "*",  # a mirror may belong to another user; nothing in it is run
        "core.hooksPath": "/dev/null",
        "core.fsmonitor": "false",
        "credential.helper": "",
        "http.followRedirects": "initial" if redirects else "false",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "fetch.fsckObjects": "false",
        "gc.auto": "0",
        "maintenance.auto": "false",
    }
    if pinned:
        settings["http.curloptResolve"] = pinned
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    env = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "LC_ALL": "C",
    }
    env |= {"GIT_NO_LAZY_FETCH": "1", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return run(
            ["git", *options, f"--git-dir={git_dir}", *arguments],
            timeout_s=timeout_s,
            env=env,
            max_output=max_output,
            max_file=MAX_PACKED if protocols else max_output + 1,
        )
    except TooSlow as error:
        raise Unavailable("repository_too_slow", f"git took longer than {timeout_s:g} s.", _AGAIN) from error
    except TooMuch as error:
        raise Invalid(
            "file_too_large", f"A file that is read for the lock is larger than {max_output:,} bytes.", "Ask the pack's author to make it smaller."
        ) from error
    except FileNotFoundError as error:
        raise Unavailable("git_missing", "There is no git on this machine.", "Install git.") from error


def _has(git_dir: Path, commit: str) -> bool:
    return _git(["cat-file", "-e", f"{commit}^{{commit}}"], git_dir=git_dir).code == 0


def _tree(git_dir: Path, commit: str, name: str) -> Tree:
    # Not `show`: it compares trees even when it prints no patch, and a small tree can stand for millions of files.
    said = _git(["log", "--no-walk", "--no-show-signature", "--format=%ct", commit, "--"], git_dir=git_dir)
    seconds = said.out.decode("ascii", "replace").strip()
    if said.code != 0 or not seconds.isdecimal():
        raise _unknown(commit, name)
    try:
        committed_at = datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, ValueError, OSError) as error:
        message = f"{commit[:12]} of {name[:200]} is dated after the year 9999."
        raise Invalid("commit_date_refused", message, "Choose another commit.", details={"repository": name[:300], "commit": commit}) from error
    return Tree(git_dir, commit, committed_at, name)


def _unknown(ref: str, name: str) -> NotFound:
    if COMMIT.fullmatch(ref) or _SHORT.fullmatch(ref):
        message = f"{name[:200]} has no commit {ref[:40]}; it may have been removed."
        return NotFound("commit_gone", message, "Choose another commit, or a mirror that still has it.", details={"repository": name[:300], "commit": ref[:40]})
    return NotFound(
        "ref_unknown", f"{name[:200]} has no branch or tag {ref[:80]!r}.", "Check its spelling.", details={"repository": name[:300], "ref": ref[:200]}
    )


@contextlib.contextmanager
def _cached(address: str, sources: Sources) -> Iterator[Path]:
    """The bare cache of `address`, held alone: two locks of one pack fetch it once. Raises Unavailable `cache_unwritable`."""
    git_dir = sources.cache / f"{hashlib.sha256(address.encode()).hexdigest()[:32]}.git"
    try:
        sources.cache.mkdir(parents=True, exist_ok=True)
        held = git_dir.with_suffix(".lock").open("w")
    except OSError as error:
        raise _cache_trouble(error.strerror or type(error).__name__) from error
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _made(git_dir, address)
        yield git_dir


def _made(git_dir: Path, address: str) -> None:
    """Have the cache whole, also after a process was killed while it was made or filled: what it left would stop every later one."""
    try:
        for left in (*git_dir.glob("*.lock"), *git_dir.glob("refs/**/*.lock")):
            left.unlink(missing_ok=True)
        for left in git_dir.glob("objects/pack/tmp_*"):
            # A build may be reading big files into the same cache just now.
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink(missing_ok=True)
        whole = (git_dir / "HEAD").is_file() and address in (git_dir / "config").read_text("utf-8", "replace")
    except OSError:
        whole = False
    if not whole:
        for arguments in (["init", "--quiet", "--bare"], ["config", "remote.origin.url", address]):
            said = _git(arguments, git_dir=git_dir)
            if said.code != 0:
                raise _cache_trouble(said.err.strip()[-200:])


def _cache_trouble(why: str) -> Unavailable:
    return Unavailable("cache_unwritable", f"The cache of sources cannot be written: {why}.", "Free disk space, or set BUILD_CACHE to a directory with room.")
