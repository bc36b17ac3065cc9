"""Git repositories and caches in every bad state: killed in the middle, too large, dated absurdly."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builds.locking import repositories, running
from builds.locking import sources as places
from builds.locking.sources import Sources
from controlplane.kernel.errors import Invalid, Unavailable

IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@example.invalid"))}


def git(where: Path, *words: str, given: str = "") -> str:
    env = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True, check=True, env=env, input=given).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    where = tmp_path / "origin"
    where.mkdir()
    git(where, "init", "-q", "-b", "main")
    (where / "requirements.txt").write_text("numpy\n")
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "x")
    return where


@pytest.fixture
def fetched(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Sources]:
    """Address, commit and sources of a repository that is fetched, as from another machine."""
    monkeypatch.setattr(repositories, "_local", lambda address: None)
    return f"file://{origin}", git(origin, "rev-parse", "HEAD"), Sources(cache=tmp_path / "cache", protocols=("file",))


def cache_of(sources: Sources) -> Path:
    (found,) = sources.cache.glob("*.git")
    return found


def test_a_lock_file_of_a_killed_git_does_not_stop_the_next(fetched: tuple[str, str, Sources]) -> None:
    address, commit, sources = fetched
    with repositories._cached(address, sources):
        pass
    (cache_of(sources) / "shallow.lock").touch()
    (cache_of(sources) / "config.lock").touch()
    assert repositories.open_tree(address, commit, sources=sources).read("requirements.txt") == "numpy\n"


@pytest.mark.parametrize("left", ["init-only", "empty-config", "no-config", "empty-folder"])
def test_a_cache_that_was_half_made_is_made_whole(fetched: tuple[str, str, Sources], left: str) -> None:
    address, commit, sources = fetched
    with repositories._cached(address, sources) as git_dir:
        pass
    if left == "init-only":
        git(git_dir, "config", "--unset", "remote.origin.url")
    elif left == "empty-config":
        (git_dir / "config").write_text("")
    elif left == "no-config":
        (git_dir / "config").unlink()
    else:
        (git_dir / "HEAD").unlink()
        (git_dir / "config").unlink()
    assert repositories.open_tree(address, commit, sources=sources).commit == commit


def test_a_cache_that_cannot_be_written_says_so(fetched: tuple[str, str, Sources], tmp_path: Path) -> None:
    address, commit, _ = fetched
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as refused:
        repositories.open_tree(address, commit, sources=Sources(cache=tmp_path / "file" / "cache", protocols=("file",)))
    assert refused.value.code == "cache_unwritable"


def test_a_repository_that_sends_without_end_is_cut_and_named(fetched: tuple[str, str, Sources], origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, _, sources = fetched
    (origin / "noise").write_bytes(os.urandom(900_000))
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "noise")
    monkeypatch.setattr(repositories, "MAX_PACKED", 100_000)
    with pytest.raises(Invalid) as refused:
        repositories.open_tree(address, git(origin, "rev-parse", "HEAD"), sources=sources)
    assert refused.value.code == "repository_too_large"


def test_a_commit_dated_past_the_calendar_is_refused(origin: Path, tmp_path: Path) -> None:
    tree = git(origin, "rev-parse", "HEAD^{tree}")
    text = f"tree {tree}\nauthor t <t@t> 1 +0000\ncommitter t <t@t> 99999999999999 +0000\n\nx\n"
    commit = git(origin, "hash-object", "-t", "commit", "-w", "--stdin", given=text)
    with pytest.raises(Invalid) as refused:
        repositories.open_tree(str(origin), commit, sources=Sources(cache=tmp_path / "cache"))
    assert refused.value.code == "commit_date_refused"


def test_the_date_of_a_tree_that_stands_for_millions_of_files_is_read_at_once(origin: Path, tmp_path: Path) -> None:
    blob = git(origin, "hash-object", "-w", "--stdin", given="x")
    tree = git(origin, "mktree", given=f"100644 blob {blob}\tf\n")
    for _ in range(9):
        tree = git(origin, "mktree", given="".join(f"040000 tree {tree}\td{number}\n" for number in range(10)))
    text = f"tree {tree}\nauthor t <t@t> 1 +0000\ncommitter t <t@t> 1700000000 +0000\n\nx\n"
    commit = git(origin, "hash-object", "-t", "commit", "-w", "--stdin", given=text)
    found = repositories.open_tree(str(origin), commit, sources=Sources(cache=tmp_path / "cache"))
    assert found.committed_at.year == 2023


def test_a_program_that_writes_without_end_is_ended_long_before_the_disk_is_full() -> None:
    with pytest.raises(running.TooMuch):
        running.run(["head", "-c", "500000000", "/dev/zero"], timeout_s=60, max_output=1_000_000, max_file=1_000_001)


class Handler(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.headers['Host']}{self.path}")
        self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The port of a server of our own network."""
    Handler.asked = []
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running_one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running_one.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield str(running_one.server_address[1])
    running_one.shutdown()
    running_one.server_close()
    thread.join()


def resolving(monkeypatch: pytest.MonkeyPatch, name: str, *answers: str) -> None:
    given, real = list(answers), socket.getaddrinfo

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real(given.pop(0) if len(given) > 1 else given[0], *args, **kwargs) if host == name else real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_git_connects_to_the_address_that_was_checked_and_no_other(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    # "localhost" stands for a name that means another machine to git than to the check: git itself would find 127.0.0.1.
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    resolving(monkeypatch, "localhost", "127.77.77.77")
    sources = Sources(cache=tmp_path, protocols=("http",), timeout_s=10)
    with pytest.raises((Unavailable, repositories.NotFound)):
        repositories.open_tree(f"http://localhost:{inside}/a/b", "main", sources=sources)
    assert Handler.asked == []


def test_a_name_that_turns_inward_is_refused_before_git_is_asked(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "turning.example.com", "93.184.216.34", "127.0.0.1")
    sources = Sources(cache=tmp_path, protocols=("http",), timeout_s=10)
    address = f"http://turning.example.com:{inside}/a/b"
    places.check(address, sources)
    with pytest.raises(Invalid) as refused:
        repositories.open_tree(address, "main", sources=sources)
    assert refused.value.code == "repository_refused"
    assert Handler.asked == []


def test_mirrors_of_our_own_are_asked_wherever_they_are(inside: str, tmp_path: Path) -> None:
    mirror = f"http://127.0.0.1:{inside}"
    assert places.pinned(f"{mirror}/a/b.git", Sources(cache=tmp_path, pack_mirror=mirror)) == ""


def test_a_refused_address_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        places.check("https://user:secret@example.com/a/b", Sources(cache=tmp_path))
    assert "secret" not in str(refused.value.envelope())
