"""The store with real processes: many at once, killed at any moment, on a disk that fills up, under a cap that must hold."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fleet.agent.conftest import plane_module
from tests.fleet.agent.model_source import ModelSource, Served, cheap_bytes, sha, tensors

REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1024**2
BIG = 200 * MIB
wait_until = plane_module.wait_until

# A process that claims models as a worker does, says when it has them, and holds them until its stdin ends.
CLAIM = """
import json, sys
from fleet.agent.store import settings, wanted
from fleet.agent.store.failures import StoreError
from fleet.agent.store.store import Store
store = Store(settings.from_env())
print(json.dumps({"open": True}), flush=True)
for line in sys.stdin:
    try:
        paths = store.ensure(wanted.parse(json.loads(line)), job="job")
        print(json.dumps({"paths": [str(p) for p in paths.values()], "sizes": [p.stat().st_size for p in paths.values()], **store.figures()}), flush=True)
    except StoreError as error:
        print(json.dumps({"error": error.body()}), flush=True)
    store.release("job") if "--let-go" in sys.argv else None
"""


class Claimer:
    """One such process."""

    def __init__(self, env: dict[str, str], *flags: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("COMFYPLANE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, *flags],
            cwd=REPOSITORY,
            env=clean | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def opened(self) -> None:
        assert self.read() == {"open": True}

    def claim(self, *models: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(models) + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"ended": self.process.wait()}

    def ask(self, *models: dict[str, Any]) -> dict[str, Any]:
        self.claim(*models)
        return self.read()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def source() -> Iterator[ModelSource]:
    with ModelSource() as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def start(source: ModelSource, root: Path) -> Iterator[Callable[..., Claimer]]:
    made: list[Claimer] = []

    def launch(*flags: str, **told: str) -> Claimer:
        usual = {"DIR": str(root), "HOSTS": source.url, "KEEP_FREE": "0", "ROOM_WAIT_S": "0", "BACKOFF_S": "0.01", "TRIES": "3"}
        made.append(Claimer({f"COMFYPLANE_STORE_{name}": value for name, value in (usual | told).items()}, *flags))
        return made[-1]

    yield launch
    for claimer in made:
        claimer.end()


def entry(data: bytes, url: str, name: str = "m.safetensors", size: bool = True) -> dict[str, Any]:
    return {"directory": "checkpoints", "filename": name, "sha256": sha(data), "size_bytes": len(data) if size else None, "urls": [url]}


def on_disk(root: Path) -> int:
    """Bytes that models take on the disk at one moment, those under way included.

    A walk is no moment: what one file leaves another may take before the walk ends, and both would count. What two walks in a row
    both find was there between them.
    """
    first, second = _files(root), _files(root)
    return sum(min(size, second[inode]) for inode, size in first.items() if inode in second)


def _files(root: Path) -> dict[int, int]:
    """Bytes of every file there, by inode: a finished download keeps its own under another name."""
    found = {}
    for folder in ("sha256", "partial"):
        for path in (root / folder).rglob("*"):
            try:
                told = path.stat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(told.st_mode):
                found[told.st_ino] = max(told.st_size, told.st_blocks * 512)
    return found


def status(root: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.agent.store", "--store-dir", str(root), "status"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_twenty_processes_that_claim_one_file_fetch_it_once(start, source, root):
    data = tensors(BIG)
    model = entry(data, source.add("/big", data))
    claimers = [start() for _ in range(20)]
    for claimer in claimers:
        claimer.opened()
    for claimer in claimers:
        claimer.claim(model)
    answers = [claimer.read() for claimer in claimers]
    assert source.bytes_served == len(data), "one download, to the byte"
    assert len({tuple(a["paths"]) for a in answers}) == 1 and Path(answers[0]["paths"][0]).stat().st_size == len(data)
    assert sum(a["misses"] for a in answers) == 1 and sum(a["coalesced"] + a["hits"] for a in answers) == 19
    assert on_disk(root) <= len(data) + 8192 and status(root)["files"][0]["in_use"] == 20
    for claimer in claimers[:10]:
        claimer.kill()
    assert status(root)["files"][0]["in_use"] == 10, "the dead hold nothing"


def test_a_killed_download_is_gone_on_with_by_the_next_process(start, source, root):
    data = tensors(BIG, seed=2)
    model = entry(data, source.add("/big", data))
    served = source.files["/big"]
    served.before = lambda s, h: setattr(s, "bytes_per_s", 20 * MIB) if source.bytes_served >= BIG // 2 else None
    first, waiter = start(), start()
    for claimer in (first, waiter):
        claimer.opened()
    first.claim(model)
    wait_until(lambda: source.bytes_served >= BIG // 2, what="half the file")
    waiter.claim(model)
    first.kill()
    served.before, served.bytes_per_s, killed_at = None, 0.0, source.bytes_served
    answer = waiter.read()
    assert answer["sizes"] == [len(data)] and answer["misses"] == 1
    assert answer["fetched_bytes"] <= len(data) - BIG // 2 + 80 * MIB, "what was written down was not fetched again"
    assert killed_at < source.bytes_served < len(data) + 100 * MIB
    resumed = [r["headers"] for r in source.requests if r["headers"].get("if-range")]
    assert resumed and all(h["if-range"] == served.etag for h in resumed)
    assert not [p for p in (root / "partial").iterdir() if p.suffix == ".part"]


def test_a_process_killed_again_and_again_gets_there(start, source, root):
    data = tensors(24 * MIB, seed=3)
    model = entry(data, source.add("/m", data, bytes_per_s=6 * MIB))
    rng, kills = random.Random(7), 0
    while kills < 12:
        claimer = start(PART="1MiB")
        claimer.opened()
        claimer.claim(model)
        reading: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda c=claimer, r=reading: r.append(c.read()))
        thread.start()
        thread.join(rng.uniform(0.05, 0.35))
        if not thread.is_alive():
            break
        claimer.kill()
        thread.join()
        kills += 1
        assert on_disk(root) <= len(data) + 8192
    source.files["/m"].bytes_per_s = 0
    last = start()
    last.opened()
    assert Path(last.ask(model)["paths"][0]).read_bytes() == data
    assert kills >= 2 and source.bytes_served < len(data) * 3


def test_the_file_that_changed_while_nobody_looked_is_fetched_whole(start, source):
    old, new = tensors(32 * MIB, seed=4), tensors(32 * MIB, seed=5)
    source.add("/m", old, etag='"old"', bytes_per_s=10 * MIB)
    first = start(PART="1MiB")
    first.opened()
    first.claim(entry(new, source.url + "/m"))
    wait_until(lambda: source.bytes_served >= 12 * MIB, what="some of the old file")
    first.kill()
    source.files["/m"] = Served(new, etag='"new"')
    second = start()
    second.opened()
    answer = second.ask(entry(new, source.url + "/m"))
    assert Path(answer["paths"][0]).read_bytes() == new and answer["corrupt"] == 0


def test_wrong_bytes_are_fetched_once_again_by_one_and_failed_for_all(start, source, root):
    right, wrong = tensors(16 * MIB, seed=6), tensors(16 * MIB, seed=7)
    model = entry(right, source.add("/m", wrong, bytes_per_s=15 * MIB))
    claimers = [start() for _ in range(6)]
    for claimer in claimers:
        claimer.opened()
    for claimer in claimers:
        claimer.claim(model)
    answers = [claimer.read() for claimer in claimers]
    assert {a["error"]["code"] for a in answers} == {"model_wrong_bytes"} and all(a["error"]["suggestion"] for a in answers)
    assert source.bytes_served == 2 * len(wrong) and on_disk(root) == 0
    source.files["/m"].data = right
    assert claimers[0].ask(model)["sizes"] == [len(right)], "and it can be tried again"


def test_a_server_without_ranges_and_a_slow_one(start, source):
    plain, slow = tensors(20 * MIB, seed=8), tensors(MIB, seed=9)
    models = [
        entry(plain, source.add("/plain", plain, ranges=False), "a.safetensors"),
        entry(slow, source.add("/slow", slow, bytes_per_s=700_000), "b.safetensors", False),
    ]
    claimer = start(PART="256KiB")
    claimer.opened()
    assert claimer.ask(*models)["sizes"] == [len(plain), len(slow)]
    assert source.bytes_served == len(plain) + len(slow)


def needs_root(why: str) -> None:
    if os.environ.get("COMFYPLANE_REQUIRE_ROOT") == "1":
        pytest.fail(f"COMFYPLANE_REQUIRE_ROOT=1 promises it, but {why}")
    pytest.skip(why)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB that really fills up."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "comfyplane-test", str(place)], capture_output=True, check=False)
    if made.returncode:
        needs_root(f"mounting a tmpfs needs root: {made.stderr.decode()[:200]}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_told_before_the_download_and_old_models_make_way(small_disk, start, source):
    root = small_disk / "store"
    claimer = start("--let-go", DIR=str(root), CAP="1GiB")
    claimer.opened()
    models = []
    for n in range(3):
        data = tensors(9 * MIB, seed=20 + n)
        models.append(entry(data, source.add(f"/{n}", data), f"{n}.safetensors"))
    for model in models[:2]:
        assert "error" not in claimer.ask(model)
    assert "error" not in claimer.ask(models[2]), "the cap allows all three, the disk does not: the oldest went"
    assert [f["name"] for f in status(root)["files"]] == ["checkpoints/2.safetensors", "checkpoints/1.safetensors"]
    before = source.bytes_served
    big = tensors(30 * MIB, seed=30)
    error = claimer.ask(entry(big, source.add("/big", big)))["error"]
    assert error["code"] == "model_no_room" and source.bytes_served == before, "not a byte was fetched"
    (small_disk / "somebody-elses").write_bytes(bytes(psutil.disk_usage(str(small_disk)).free - MIB))
    claimers = [claimer, start("--let-go", DIR=str(root), CAP="1GiB")]
    claimers[1].opened()
    assert "error" not in claimers[1].ask(models[1]), "what is here stays usable on a full disk"
    holding = start(DIR=str(root), CAP="1GiB")
    holding.opened()
    assert "error" not in holding.ask(models[1], models[2])
    assert claimer.ask(models[0])["error"]["code"] == "model_no_room"
    holding.kill()
    (small_disk / "somebody-elses").unlink()
    assert "error" not in claimer.ask(models[0])


def test_the_cap_holds_while_eight_processes_fetch_and_die(start, source, root):
    cap, rng = 20 * MIB, random.Random(11)
    models = []
    for n in range(16):
        data = tensors(rng.randint(64 * 1024, 6 * MIB), seed=100 + n)
        models.append(
            entry(data, source.add(f"/{n}", data, ranges=bool(n % 5), bytes_per_s=rng.choice([0, 0, 30 * MIB])), f"{n}.safetensors", size=bool(n % 3))
        )
    over, looks, done = [], 0, threading.Event()

    def watch() -> None:
        nonlocal looks
        while not done.is_set():
            taken = on_disk(root)
            looks += 1
            if taken > cap:
                over.append(taken)
            time.sleep(0.002)

    def live(seed: int) -> None:
        mine = random.Random(seed)
        claimer = start("--let-go", CAP=str(cap), PART="256KiB")
        claimer.opened()
        for _ in range(12):
            wanted = mine.sample(models, mine.randint(1, 2))
            if mine.random() < 0.15:
                claimer.claim(*wanted)
                time.sleep(mine.uniform(0.0, 0.05))
                claimer.kill()
                claimer = start("--let-go", CAP=str(cap), PART="256KiB")
                claimer.opened()
                continue
            answer = claimer.ask(*wanted)
            if "error" in answer:
                outcomes.append(answer["error"]["code"])
            else:
                outcomes.append("ok" if answer["used_bytes"] <= cap else "over the cap")
        claimer.end()

    outcomes: list[str] = []
    watching = threading.Thread(target=watch)
    watching.start()
    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watching.join()
    assert not over and looks > 20, f"the cap was exceeded: {max(over, default=0)} of {cap}"
    assert set(outcomes) <= {"ok", "model_no_room"} and outcomes.count("ok") > 40
    said = status(root)
    assert said["pinned_bytes"] == 0 and said["used_bytes"] <= cap and said["counted"]["evictions"] > 0
    found = subprocess.run(
        [sys.executable, "-m", "fleet.agent.store", "--store-dir", str(root), "verify"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0 and json.loads(found.stdout)["damaged"] == []


def test_two_containers_with_equal_process_ids_do_not_take_each_other_for_dead(start, source, root):
    """A process in a namespace of its own, where every id means something else, keeps what it pinned."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        needs_root("a process namespace of its own needs root")
    data = cheap_bytes(8 * MIB, seed=40)
    model = entry(data, source.add("/m", data), "m.gguf")
    env = {f"COMFYPLANE_STORE_{k}": v for k, v in {"DIR": str(root), "HOSTS": source.url, "KEEP_FREE": "0", "CAP": "12MiB", "ROOM_WAIT_S": "0"}.items()}
    inside = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", CLAIM],
        cwd=REPOSITORY,
        env=os.environ | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert inside.stdin is not None and inside.stdout is not None
    try:
        inside.stdin.write(json.dumps([model]) + "\n")
        inside.stdin.flush()
        assert json.loads(inside.stdout.readline()) == {"open": True}
        assert json.loads(inside.stdout.readline())["sizes"] == [len(data)]
        other = tensors(8 * MIB, seed=41)
        outside = start(CAP="12MiB")
        outside.opened()
        wanted = entry(other, source.add("/other", other))
        assert outside.ask(wanted)["error"]["code"] == "model_no_room", "the other's model is in use"
        inside.kill()
        inside.wait()
        wait_until(lambda: "error" not in outside.ask(wanted), what="room of the dead")
    finally:
        inside.kill()
        inside.wait()
        inside.stdin.close()
        inside.stdout.close()
