"""The package index: what upload times bound, an index without them, one that is down or hangs; packages from git."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lock_world
import pytest
from factories import make_version, make_workflow
from racing import race

from builds.dependencies import pins
from builds.locking import document, making
from builds.models import Lock, NodeLibrary, Pack, VersionLock
from controlplane.kernel.errors import WorkflowError

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
COMMITTED = datetime.fromtimestamp(lock_world.AT, UTC)


class Index(ThreadingHTTPServer):
    """A simple index with upload times (PEP 700): old versions a day before the commit, those in `late` after it."""

    daemon_threads = True

    def __init__(self, wheels: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheels, self.late, self.hang, self.asked = wheels, set[str](), threading.Event(), 0
        self.hanging = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send(405, b"", "text/plain")

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked += 1
        if server.hanging:
            server.hang.wait(30)
            return
        parts = self.path.strip("/").split("/")
        if parts[0] == "files" and parts[1].endswith(".metadata"):
            with zipfile.ZipFile(server.wheels / parts[1].removesuffix(".metadata")) as wheel:
                name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
                self.send(200, wheel.read(name), "text/plain")
            return
        if parts[0] == "files":
            self.send(200, (server.wheels / parts[1]).read_bytes(), "application/octet-stream")
            return
        files = []
        for path in sorted(server.wheels.glob(f"{parts[1].replace('-', '_')}-*.whl")):
            at = COMMITTED + timedelta(days=30) if path.name in server.late else COMMITTED - timedelta(days=1)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = {"filename": path.name, "url": f"/files/{path.name}", "hashes": {"sha256": digest}, "core-metadata": True}
            files.append(entry | {"upload-time": at.strftime("%Y-%m-%dT%H:%M:%S.000000Z")})
        body = {"meta": {"api-version": "1.1"}, "name": parts[1], "files": files, "versions": []}
        self.send(200 if files else 404, json.dumps(body).encode(), "application/vnd.pypi.simple.v1+json")

    def send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    server = Index(lock_world.shelf(tmp_path / "index"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.hang.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def world(tmp_path: Path, index: Index) -> lock_world.World:
    made = lock_world.World(tmp_path / "world")
    made.sources = replace(made.sources, find_links=(), offline=False, index=index.url)
    return made


@pytest.fixture
def version() -> Any:
    return make_version(make_workflow(now=NOW), now=NOW)


def prepare(world: lock_world.World, version: Any, *packs: dict[str, Any], **wishes: Any) -> making.Prepared:
    given = {"sources": world.sources, "target": world.target, "report": lock_world.report(*packs)} | wishes
    return making.prepare(version=version, **given)


def versions(prepared: making.Prepared) -> dict[str, str]:
    return {one["name"]: one["version"] for one in prepared.document["python_packages"]}


def test_what_was_uploaded_after_the_commit_does_not_count(world: lock_world.World, index: Index, version: Any) -> None:
    index.late = {"torch-2.8.0-py3-none-any.whl", "torchvision-0.23.0-py3-none-any.whl", "aiohttp-3.13.0-py3-none-any.whl"}
    prepared = prepare(world, version)
    assert versions(prepared)["torch"] == "2.7.0" and versions(prepared)["aiohttp"] == "3.12.0"
    assert prepared.document["python"]["as_of"] == COMMITTED.isoformat()
    assert prepared.findings == []


def test_a_bounded_freeze_is_the_same_a_year_later_and_needs_the_index_once(world: lock_world.World, index: Index, version: Any, tmp_path: Path) -> None:
    first = prepare(world, version)
    asked = index.asked
    assert prepare(world, version).sha256 == first.sha256 and index.asked == asked, "the same question is not asked twice"
    newer = lock_world.wheel(index.wheels, "aiohttp", "4.0.0")
    index.late = {newer.name}
    fresh = replace(world.sources, cache=tmp_path / "another")
    assert prepare(world, version, sources=fresh).sha256 == first.sha256, "what is uploaded later changes no lock"


def test_packs_are_resolved_as_of_the_newest_commit_and_comfyui_as_of_its_own(world: lock_world.World, index: Index, version: Any) -> None:
    index.late = {"aiohttp-3.13.0-py3-none-any.whl", "colour-0.4.6-py3-none-any.whl"}
    commit = world.frames.commit({"requirements.txt": "colour\n"}, at=int((COMMITTED + timedelta(days=40)).timestamp()))
    prepared = prepare(world, version, lock_world.pack(lock_world.FRAMES, commit, classes=["FrameJoin"]))
    assert versions(prepared)["colour"] == "0.4.6" and versions(prepared)["aiohttp"] == "3.12.0"
    assert prepared.document["python"]["as_of"] == (COMMITTED + timedelta(days=40)).isoformat()


def test_a_pack_dated_far_ahead_binds_the_freeze_to_its_own_time_only(world: lock_world.World, index: Index, version: Any) -> None:
    commit = world.frames.commit({"requirements.txt": "colour\n"}, at=int((COMMITTED + timedelta(days=9_000)).timestamp()))
    prepared = prepare(world, version, lock_world.pack(lock_world.FRAMES, commit, classes=["FrameJoin"]))
    assert prepared.document["python"]["as_of"] == COMMITTED.isoformat()
    assert [one["code"] for one in prepared.findings] == ["pack_date_doubted"]


def test_a_version_somebody_names_counts_whenever_it_was_uploaded(world: lock_world.World, index: Index, version: Any) -> None:
    index.late = {"torch-2.8.0-py3-none-any.whl", "torchvision-0.23.0-py3-none-any.whl"}
    prepared = prepare(world, version, constraints=["torch==2.8.0", "torchvision==0.23.0"])
    assert versions(prepared)["torch"] == "2.8.0" and prepared.document["python"]["as_of"] == COMMITTED.isoformat()


def test_packages_that_only_an_index_without_times_has_are_named(world: lock_world.World, index: Index, version: Any, tmp_path: Path) -> None:
    for path in index.wheels.glob("pillow-*.whl"):
        path.unlink()
    undated = lock_world.simple_index(tmp_path / "undated")
    prepared = prepare(world, version, sources=replace(world.sources, index=f"{index.url} {undated.as_uri()}"))
    (said,) = prepared.findings
    assert said["code"] == "index_without_dates" and "pillow" in said["message"] and "torch" not in said["message"]
    assert prepared.document["python"]["as_of"] == COMMITTED.isoformat()


def test_packages_left_out_by_the_settings_are_said(world: lock_world.World, version: Any) -> None:
    prepared = prepare(world, version, target=world.with_target(left_out=("torchvision",)))
    assert "torchvision" not in versions(prepared)
    assert [one["code"] for one in prepared.findings] == ["packages_left_out"]


def test_an_index_that_is_down_says_so_and_can_be_tried_again(world: lock_world.World, index: Index, version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")  # uv waits ten seconds between them
    with pytest.raises(WorkflowError) as refused:
        prepare(world, version, sources=replace(world.sources, index="http://127.0.0.1:9/simple"))
    assert refused.value.code == "index_unreachable" and refused.value.status == 503
    assert versions(prepare(world, version))["torch"] == "2.8.0"


def test_an_index_that_hangs_is_left_at_the_deadline(world: lock_world.World, index: Index, version: Any) -> None:
    index.hanging = True
    with pytest.raises(WorkflowError) as refused:
        prepare(world, version, sources=replace(world.sources, timeout_s=1.0))
    assert refused.value.code == "resolver_too_slow"


def test_a_package_without_a_wheel_is_refused_before_its_code_runs(world: lock_world.World, index: Index, version: Any, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    folder = tmp_path / "shelf"
    folder.mkdir()
    with tarfile.open(folder / "trap-1.0.tar.gz", "w:gz") as packed:
        for name, text in {
            "trap-1.0/setup.py": f"open({str(trap)!r}, 'w').close()\n",
            "trap-1.0/PKG-INFO": "Metadata-Version: 1.0\nName: trap\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
    commit = world.frames.commit({"requirements.txt": "trap\n"})
    with pytest.raises(WorkflowError) as refused:
        prepare(world, version, lock_world.pack(lock_world.FRAMES, commit, classes=["FrameJoin"]), sources=replace(world.sources, find_links=(str(folder),)))
    assert refused.value.code == "requirement_needs_building" and lock_world.FRAMES in refused.value.message
    assert not trap.exists()


def test_a_package_from_git_is_locked_by_its_commit(world: lock_world.World, version: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = lock_world.Repository(tmp_path / "forge" / "house" / "lib.git")
    commit = lib.commit({"pyproject.toml": '[project]\nname = "lib"\nversion = "1.0"\ndependencies = ["colour"]\n', "lib.py": ""})
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "file://{tmp_path}/forge/"]\n\tinsteadOf = https://codeberg.org/\n[safe]\n\tdirectory = *\n')
    monkeypatch.setenv("HOME", str(home))
    asked = world.frames.commit({"requirements.txt": f"git+https://codeberg.org/house/lib.git@{commit}\n"})
    prepared = prepare(world, version, lock_world.pack(lock_world.FRAMES, asked, classes=["FrameJoin"]))
    (entry,) = [one for one in prepared.document["python_packages"] if one["name"] == "lib"]
    assert entry["url"].startswith("git+https://codeberg.org/house/lib") and entry["url"].endswith(commit) and entry["hashes"] == []
    assert versions(prepared)["colour"] == "0.4.6"


def test_a_real_graph_with_a_pinned_pack_is_locked_by_its_report(world: lock_world.World, version: Any) -> None:
    Pack.objects.create(key=lock_world.FRAMES.lower(), repository=lock_world.FRAMES, title="Frames", seen_at=NOW)
    pins.place(class_name="FrameJoin", pack=lock_world.FRAMES, version=world.frames_commit, reason="its readme says so", workflow=None, actor="ada", now=NOW)
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {}},
        "2": {"class_type": "FrameJoin", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    }
    info = {name: {"input": {"required": {}}, "output": ["IMAGE"], "python_module": "nodes"} for name in ("EmptyImage", "SaveImage")}
    NodeLibrary.objects.create(name="small", comfyui_version="0.3.64", sha256="0" * 64, object_info=info, current=True, created_at=NOW)
    with_pack = make_version(version.workflow, now=NOW, graph=graph, inputs=[])
    lock = making.make(version=with_pack, sources=world.sources, target=world.target, actor="ada", now=NOW)
    (pack,) = lock.document["packs"]
    assert (pack["commit"], pack["classes"]) == (world.frames_commit, ["FrameJoin"])
    assert lock.document["classes"] == ["EmptyImage", "FrameJoin", "SaveImage"]


@pytest.mark.django_db(transaction=True)
def test_many_who_keep_one_lock_at_once_keep_one(world: lock_world.World, version: Any) -> None:
    prepared = prepare(world, version)
    locks = race(6, lambda _: making.keep(version=version, prepared=prepared, actor="ada", now=NOW).pk)
    assert set(locks) == {document.sha256(prepared.document)}
    assert Lock.objects.count() == VersionLock.objects.count() == 1
