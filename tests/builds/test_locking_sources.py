"""Repositories and the registry over the network: real git and real HTTP on loopback, with every bad habit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lock_world
import pytest

from builds.locking import packs, registry, repositories, sources
from builds.locking.sources import Sources
from controlplane.kernel.errors import WorkflowError


class Forge(ThreadingHTTPServer):
    """git's own HTTP server over bare repositories, a registry of packs, and some bad habits by path."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.fetches, self.archives = root, 0, {}  # type: ignore[var-annotated]
        self.downloads: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def answer(self, body: bytes) -> None:
        server: Any = self.server
        path = urlsplit(self.path)
        if path.path.startswith("/nodes/") or path.path.startswith("/archives/"):
            return self.registry(path)
        if "moved" in path.path:
            return self.send(302, b"", Location="http://127.0.0.1:1/elsewhere.git/info/refs")
        if "private" in path.path:
            return self.send(401, b"who are you", **{"WWW-Authenticate": "Basic"})
        if "hanging" in path.path:
            server.release.wait(20)
            return None
        if path.path.endswith("git-upload-pack"):
            server.fetches += 1
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(server.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path.path, "QUERY_STRING": path.query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "3", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_1": "false" if "strict" in path.path else "true", "GIT_CONFIG_KEY_2": "uploadpack.allowFilter", "GIT_CONFIG_VALUE_2": "true",
        }  # fmt: skip
        said = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env, check=False).stdout
        head, _, content = said.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
        return self.send(status, content, **{name: value for name, value in lines if name != "Status"})

    def registry(self, path: Any) -> None:
        server: Any = self.server
        if path.path.startswith("/archives/"):
            server.downloads.append(path.path)
            return self.send(200, server.archives[path.path.removeprefix("/archives/")])
        name = path.path.split("/")[2]
        version = path.query.removeprefix("version=")
        if name == "gone":
            return self.send(404, b"{}")
        if name == "garbled":
            return self.send(200, b"<html>")
        if name == "inward":
            return self.send(200, json.dumps({"version": version, "downloadUrl": "http://169.254.169.254/latest"}).encode())
        if name == "other-version":
            return self.send(200, json.dumps({"version": "9.9.9", "downloadUrl": f"{server.url}/archives/tones"}).encode())
        if name == "broken":
            return self.send(500, b"")
        said = {"version": version, "downloadUrl": f"{server.url}/archives/{name}", "createdAt": "2025-10-09T12:00:00Z"}
        return self.send(200, json.dumps(said).encode())

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    server = Forge(tmp_path / "served")
    server.release = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.release.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repo(forge: Forge) -> lock_world.Repository:
    made = lock_world.Repository(forge.root / "git.example.com" / "people" / "frames.git")
    made.commit({"requirements.txt": "one\n"}, at=lock_world.AT, tag="v1.0.0")
    made.commit({"requirements.txt": "two\n"}, at=lock_world.AT + 60)
    return made


@pytest.fixture
def here(forge: Forge, tmp_path: Path) -> Sources:
    return Sources(cache=tmp_path / "cache", pack_mirror=forge.url, registry=forge.url, timeout_s=20.0)


REPOSITORY = "https://git.example.com/people/frames"


def open_tree(here: Sources, ref: str, repository: str = REPOSITORY) -> repositories.Tree:
    return repositories.open_tree(sources.pack_address(here, repository), ref, sources=here, repository=repository)


def test_a_commit_is_fetched_once_and_read_without_a_checkout(forge: Forge, repo: lock_world.Repository, here: Sources) -> None:
    first, head = repo.git("rev-parse", "v1.0.0^{commit}"), repo.git("rev-parse", "main")
    tree = open_tree(here, first)
    assert tree.commit == first and tree.read("requirements.txt") == "one\n" and tree.committed_at.timestamp() == lock_world.AT
    assert tree.read("setup.py") is None and tree.names() == ["requirements.txt"]
    fetches = forge.fetches
    assert open_tree(here, first).read("requirements.txt") == "one\n"
    assert forge.fetches == fetches, "a known full commit needs no network"
    assert [open_tree(here, ref).commit for ref in ("", "main", "v1.0.0", first[:7], head[:10])] == [head, head, first, first, head]
    assert not list(here.cache.glob("*.git/requirements.txt"))


def test_an_annotated_tag_means_its_commit(repo: lock_world.Repository, here: Sources) -> None:
    commit = repo.git("rev-parse", "main")
    tag = repo.git("mktag", stdin=f"object {commit}\ntype commit\ntag v2\ntagger a <a@example.com> {lock_world.AT} +0000\n\nmessage\n".encode())
    repo.git("update-ref", "refs/tags/v2", tag)
    assert open_tree(here, "v2").commit == commit


def test_a_server_that_gives_no_single_commits_is_still_read(forge: Forge, here: Sources) -> None:
    made = lock_world.Repository(forge.root / "git.example.com" / "strict" / "frames.git")
    old = made.commit({"requirements.txt": "one\n"})
    made.commit({"requirements.txt": "two\n"})
    assert open_tree(here, old, "https://git.example.com/strict/frames").read("requirements.txt") == "one\n"


@pytest.mark.parametrize(
    ("repository", "ref", "code"),
    [
        (REPOSITORY, "0" * 40, "commit_gone"),
        (REPOSITORY, "0000000", "commit_gone"),
        (REPOSITORY, "no-such-branch", "ref_unknown"),
        ("https://git.example.com/people/nothing", "", "repository_unknown"),
        ("https://git.example.com/private/frames", "", "repository_unknown"),
        ("https://git.example.com/moved/frames", "", "repository_moved"),
    ],
)
def test_what_is_not_there_is_told_apart(repo: lock_world.Repository, here: Sources, repository: str, ref: str, code: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        open_tree(here, ref, repository)
    assert refused.value.code == code
    assert refused.value.suggestion


def test_a_server_that_hangs_is_left_at_the_deadline(repo: lock_world.Repository, here: Sources) -> None:
    with pytest.raises(WorkflowError) as refused:
        open_tree(replace(here, timeout_s=0.5), "", "https://git.example.com/hanging/frames")
    assert refused.value.code == "repository_too_slow"


def test_a_server_that_is_down_is_unreachable(here: Sources) -> None:
    with pytest.raises(WorkflowError) as refused:
        open_tree(replace(here, pack_mirror="http://127.0.0.1:9"), "")
    assert refused.value.code == "repository_unreachable" and "mirror" in refused.value.suggestion


def test_a_commit_removed_upstream_is_still_read_from_the_cache(forge: Forge, repo: lock_world.Repository, here: Sources) -> None:
    commit = repo.git("rev-parse", "main")
    open_tree(here, commit)
    forge.root.rename(forge.root.with_name("away"))
    assert open_tree(here, commit).read("requirements.txt") == "two\n"


def test_two_that_fetch_one_repository_at_once_both_get_it(repo: lock_world.Repository, here: Sources) -> None:
    commit = repo.git("rev-parse", "v1.0.0^{commit}")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ref: open_tree(here, ref).read("requirements.txt"), [commit, "main", commit, "main"]))
    assert found == ["one\n", "two\n", "one\n", "two\n"]


def test_credentials_never_appear_in_what_is_said(here: Sources) -> None:
    with pytest.raises(WorkflowError) as refused:
        repositories.open_tree("http://user:secret@127.0.0.1:9/a/b.git", "", sources=replace(here, protocols=("http",)), repository=REPOSITORY)
    assert "secret" not in json.dumps(refused.value.envelope())


def _archive(forge: Forge, name: str, files: dict[str, str], top: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for path, text in files.items():
            out.writestr(zipfile.ZipInfo(top + path, (2025, 10, 9, 12, 0, 0)), text)
    forge.archives[name] = packed.getvalue()
    return packed.getvalue()


def pack(name: str, version: str = "1.2.0", repository: str = "") -> dict[str, Any]:
    return lock_world.pack(repository, version, classes=["ToneCurve"], registry_id=name)


@pytest.mark.parametrize("top", ["", "comfyui-tones-1.2.0/"])
def test_a_registry_version_is_locked_by_the_hash_of_its_archive(forge: Forge, here: Sources, settings: Any, top: str) -> None:
    data = _archive(forge, "tones", {"requirements.txt": "colour\n", "install.py": "", "__init__.py": ""}, top)
    found = packs.locate(pack("tones"), sources=here)
    entry = found.entry
    assert (entry["version"], entry["sha256"], entry["folder"], entry["install_script"]) == ("1.2.0", hashlib.sha256(data).hexdigest(), "tones", True)
    assert "commit" not in entry and [one.text for one in found.asked] == ["colour"]
    assert found.at is not None and found.at.year == 2025
    packs.locate(pack("tones"), sources=here)
    assert forge.downloads == ["/archives/tones"], "a published version never changes, so it is fetched once"
    assert registry.archive("tones", "1.2.0", sources=here, sha256=entry["sha256"]).path.read_bytes() == data


def test_other_bytes_than_the_locked_ones_are_refused(forge: Forge, here: Sources) -> None:
    _archive(forge, "tones", {"requirements.txt": ""})
    with pytest.raises(WorkflowError) as refused:
        registry.archive("tones", "1.2.0", sources=here, sha256="0" * 64)
    assert refused.value.code == "archive_changed"


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("gone", "1.2.0", "pack_version_gone"),
        ("other-version", "1.2.0", "pack_version_gone"),
        ("garbled", "1.2.0", "registry_unreachable"),
        ("broken", "1.2.0", "registry_unreachable"),
        ("inward", "1.2.0", "repository_refused"),
        ("text", "1.2.0", "archive_damaged"),
        ("../etc", "1.2.0", "pack_id_refused"),
        ("tones", "main", "pack_without_version"),
    ],
)
def test_a_registry_with_bad_habits_ends_in_a_reason(forge: Forge, here: Sources, name: str, version: str, code: str) -> None:
    forge.archives["text"] = b"not a zip"
    with pytest.raises(WorkflowError) as refused:
        packs.locate(pack(name, version), sources=here)
    assert refused.value.code == code


def test_a_version_the_registry_lost_comes_from_the_commit_that_released_it(forge: Forge, here: Sources) -> None:
    made = lock_world.Repository(forge.root / "git.example.com" / "people" / "gone.git")
    made.commit({"pyproject.toml": '[project]\nname = "gone"\nversion = "1.1.0"\n'})
    released = made.commit({"pyproject.toml": '[project]\nname = "gone"\nversion = "1.2.0"\n'})
    made.commit({"pyproject.toml": '[project]\nname = "gone"\nversion = "1.2.0"\n', "more.py": ""})
    made.commit({"pyproject.toml": '[project]\nname = "gone"\nversion = "1.3.0"\n'})
    found = packs.locate(pack("gone", repository="https://git.example.com/people/gone"), sources=here)
    assert (found.entry["commit"], found.entry["version"]) == (released, "1.2.0")
    assert "registry_version_from_repository" in {one["code"] for one in found.findings}


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("https://GitHub.com/People/Frames.git", "https://github.com/People/Frames"),
        ("git@github.com:People/Frames.git", "https://github.com/People/Frames"),
        ("http://github.com/a/b/", "https://github.com/a/b"),
        ("git+https://github.com/a/b.git", "https://github.com/a/b"),
        ("https://github.com/a/b?x=1#y", "https://github.com/a/b"),
    ],
)
def test_one_repository_has_one_spelling(given: str, spelled: str) -> None:
    assert sources.canonical(given) == spelled == sources.canonical(spelled)
