"""How fast the model store is, as ratios measured in one run.

A plain single-stream httpx download with a SHA-256 beside it is 1.0; the source is a process of its own on loopback that sends from
memory. `store` is a whole ensure: promise, parallel ranges, hash, fsync, rename. `cached` is an ensure of what is here, with its
release, as every job of a warm worker pays it. Medians; both sides in turn, so that a busy machine touches both.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx

from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.store import Store
from fleet.agent.store.wanted import Wanted
from tests.fleet.agent.model_source import ModelSource, tensors

MIB = 1024**2


def serve(size: int, pipe: multiprocessing.connection.Connection) -> None:
    data = tensors(size)
    with ModelSource() as source:
        pipe.send((source.add("/m", data), hashlib.sha256(data).hexdigest(), len(data)))
        pipe.recv()


def plain(url: str, into: Path, sha256: str) -> float:
    """What one would write by hand: stream, hash, write."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with into.open("wb") as file, httpx.stream("GET", url, timeout=60) as answer:
        for chunk in answer.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    assert digest.hexdigest() == sha256
    seconds = time.perf_counter() - began
    into.unlink()
    return seconds


def stored(root: Path, url: str, one: Wanted) -> tuple[float, float, list[float]]:
    """Seconds of a fetch into an empty store, of the processor for it, and of cached claims after it."""
    settings = StoreSettings(root, hosts=(url.rsplit("/", 1)[0],), keep_free_bytes=0)
    with Store(settings) as store:
        began, cpu = time.perf_counter(), time.process_time()
        store.ensure([one], job="a")
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        cached = []
        for n in range(200):
            began = time.perf_counter()
            store.ensure([one], job=f"j{n}")
            store.release(f"j{n}")
            cached.append(time.perf_counter() - began)
    shutil.rmtree(root)
    return seconds, cpu, cached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=200, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(options.mib * MIB, there), daemon=True)
    process.start()
    url, sha256, size = here.recv()
    one = Wanted(sha256, "checkpoints", "m.safetensors", size, (url,))
    directory = Path(tempfile.mkdtemp(prefix="comfyplane-bench-"))
    plains, stores, cached = [], [], []
    plain_cpu = store_cpu = 0.0
    try:
        for n in range(options.rounds):
            cpu = time.process_time()
            plains.append(plain(url, directory / "plain", sha256))
            plain_cpu += time.process_time() - cpu
            seconds, cpu, claims = stored(directory / f"store-{n}", url, one)
            store_cpu += cpu
            stores.append(seconds)
            cached += claims
        began = time.perf_counter()
        hashlib.sha256(bytes(size)).hexdigest()
        hashing = time.perf_counter() - began
    finally:
        here.send("end")
        process.join(5)
        shutil.rmtree(directory, ignore_errors=True)
    base, ours = statistics.median(plains), statistics.median(stores)
    print(f"{options.mib} MiB, {options.rounds} rounds; hashing alone {size / MIB / hashing:.0f} MiB/s")
    print(f"plain httpx + sha256   {size / MIB / base:7.0f} MiB/s   1.00")
    print(f"store (ranges, fsync)  {size / MIB / ours:7.0f} MiB/s   {base / ours:.2f}")
    gib = options.mib * options.rounds / 1024
    print(f"processor              {plain_cpu / gib:7.2f} s/GiB plain, {store_cpu / gib:.2f} s/GiB store")
    print(f"cached claim           {statistics.median(cached) * 1000:7.2f} ms median, {sorted(cached)[int(len(cached) * 0.95)] * 1000:.2f} ms p95")
    return 0


if __name__ == "__main__":
    sys.exit(main())
