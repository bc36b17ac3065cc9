"""The store under any order of events: claims, releases, pins, damage, crashes and changed caps. Its promises hold after each."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet.agent.store.eviction import room_of
from fleet.agent.store.failures import Gone, NoRoom, Refused, WrongBytes
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.store import Store
from fleet.agent.store.wanted import Wanted
from tests.fleet.agent.model_source import cheap_bytes, sha

FILES = {n: cheap_bytes(size, seed=n) for n, size in enumerate((1, 4096, 5000, 20_000, 40_000, 60_000))}
SHAS = {n: sha(data) for n, data in FILES.items()}
CAPS = (48 * 1024, 80 * 1024, 160 * 1024)


class StoreMachine(RuleBasedStateMachine):
    """Two processes' worth of stores on one directory (a crash leaves its lock to the kernel, as SIGKILL does)."""

    @initialize()
    def begin(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="comfyplane-machine-"))
        self.root, self.nas = self.base / "store", self.base / "nas"
        self.nas.mkdir()
        for n, data in FILES.items():
            (self.nas / str(n)).write_bytes(data)
        self.cap = CAPS[1]
        self.jobs: dict[int, dict[str, set[int]]] = {0: {}, 1: {}}
        self.pinned: set[int] = set()
        self.names = count()
        self.clock = time.time()
        self.stores = [self.opened(), self.opened()]

    def opened(self) -> Store:
        return Store(
            StoreSettings(self.root, cap_bytes=self.cap, keep_free_bytes=0, local_roots=(self.nas,), room_wait_s=0.0, part_bytes=65536), clock=self.tick
        )

    def tick(self) -> float:
        self.clock += 1.0
        return self.clock

    def one(self, n: int, sized: bool = True) -> Wanted:
        return Wanted(SHAS[n], "models", f"{n}.gguf", len(FILES[n]) if sized else None, (f"file://{self.nas}/{n}",))

    def in_use(self) -> set[int]:
        return {n for jobs in self.jobs.values() for files in jobs.values() for n in files}

    @rule(which=st.integers(0, 1), wanted=st.sets(st.sampled_from(sorted(FILES)), min_size=1, max_size=3), sized=st.booleans())
    def claim(self, which: int, wanted: set[int], sized: bool) -> None:
        held = self.in_use() | self.pinned
        must = sum(room_of(len(FILES[n])) for n in held | wanted)
        job = f"j{next(self.names)}"
        try:
            paths = self.stores[which].ensure([self.one(n, sized) for n in sorted(wanted)], job=job)
        except NoRoom as error:
            assert must > self.cap or (error.code == "model_too_large" and max(len(FILES[n]) for n in wanted) > self.cap) or not sized
            return
        except Refused as error:
            assert error.code == "model_too_large" and max(len(FILES[n]) for n in wanted) > self.cap
            return
        assert must <= self.cap, "it gave more than there is"
        for n in wanted:
            assert hashlib.sha256(paths[SHAS[n]].read_bytes()).hexdigest() == SHAS[n]
        self.jobs[which][job] = wanted

    @rule(which=st.integers(0, 1), at=st.integers(0, 5))
    def release(self, which: int, at: int) -> None:
        if self.jobs[which]:
            job = sorted(self.jobs[which])[at % len(self.jobs[which])]
            del self.jobs[which][job]
            self.stores[which].release(job)

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        keeping = self.stores[which].keeping
        keeping.ledger.close()
        os.close(keeping.holder._fd)  # all that is left of a process that was killed
        self.stores[which]._closed = True
        self.jobs[which].clear()
        self.stores[which] = self.opened()

    @rule(which=st.integers(0, 1), n=st.sampled_from(sorted(FILES)), kept=st.booleans())
    def pin(self, which: int, n: int, kept: bool) -> None:
        if self.stores[which].keeping.keep(SHAS[n], kept=kept):
            (self.pinned.add if kept else self.pinned.discard)(n)

    @rule(which=st.integers(0, 1), n=st.sampled_from(sorted(FILES)))
    def evict(self, which: int, n: int) -> None:
        try:
            self.stores[which].keeping.evict(SHAS[n])
            assert n not in self.in_use() | self.pinned
        except Refused as error:
            assert error.code == "model_unknown" or n in self.in_use() | self.pinned

    @rule(n=st.sampled_from(sorted(FILES)), how=st.sampled_from(["gone", "short"]))
    @precondition(lambda self: not self.in_use())
    def damage(self, n: int, how: str) -> None:
        path = self.stores[0].keeping.whole(SHAS[n])
        if path.exists() and n not in self.pinned:
            path.unlink()
            if how == "short":
                path.write_bytes(FILES[n][:-1])

    @rule(which=st.integers(0, 1), n=st.sampled_from(sorted(FILES)))
    def claim_from_a_bad_source(self, which: int, n: int) -> None:
        bad = Wanted(
            hashlib.sha256(b"other" + FILES[n]).hexdigest(), "models", "bad.gguf", len(FILES[n]), (f"file://{self.nas}/{n}", f"file://{self.nas}/none")
        )
        try:
            self.stores[which].ensure([bad], job="bad")
            raise AssertionError("wrong bytes were taken")
        except (WrongBytes, NoRoom, Gone):
            assert not self.stores[which].keeping.whole(bad.sha256).exists()

    @invariant()
    def the_cap_holds(self) -> None:
        if hasattr(self, "root"):
            taken = sum(
                room_of(p.stat().st_size) for folder in ("sha256", "partial") for p in (self.root / folder).rglob("*") if p.is_file() and p.suffix != ".lock"
            )
            figures = [store.figures() for store in self.stores]
            assert taken <= figures[0]["used_bytes"] <= self.cap and figures[0]["used_bytes"] == figures[1]["used_bytes"]

    @invariant()
    def what_is_in_use_is_here(self) -> None:
        if hasattr(self, "root"):
            for n in self.in_use():
                assert self.stores[0].keeping.whole(SHAS[n]).stat().st_size == len(FILES[n])

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            shutil.rmtree(self.base)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
