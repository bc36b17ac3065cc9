"""How long a lock takes on a real ComfyUI with two packs: cold (nothing kept), warm (packages known), and again (freeze kept).

Needs a git mirror of ComfyUI (BUILD_COMFYUI_SOURCE) and a package index; says so and ends well without. Run: python bench/lock.py
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
os.environ.setdefault("DATA_DIR", tempfile.mkdtemp(prefix="comfyplane-bench-"))

import django  # noqa: E402

django.setup()

import lock_world  # noqa: E402

from builds.locking import making  # noqa: E402
from builds.locking.sources import Sources, Target  # noqa: E402

BUDGET_AGAIN_S = 1.0


def main() -> int:
    given = Sources.of_settings()
    if not given.comfyui:
        print("skipped: set BUILD_COMFYUI_SOURCE to a git mirror of ComfyUI")
        return 0
    root = Path(tempfile.mkdtemp(prefix="comfyplane-bench-lock-"))
    making.earlier = lambda version: None  # no database: the first lock of a workflow
    try:
        frames = lock_world.Repository(root / "mirrors" / "frames.git")
        tones = lock_world.Repository(root / "mirrors" / "tones.git")
        at = 1_760_243_281  # beside the newest ComfyUI of the mirror these figures were first taken with
        packs = [
            lock_world.pack(
                "https://git.example.com/people/frames", frames.commit({"requirements.txt": "imageio>=2.30\nscikit-image\n"}, at=at), classes=["FrameJoin"]
            ),
            lock_world.pack(
                "https://git.example.com/people/tones", tones.commit({"requirements.txt": "colour-science\nmatplotlib\n"}, at=at), classes=["ToneCurve"]
            ),
        ]
        rows = []
        for name, cache, fresh in (("cold", root / "uv-cold", True), ("warm", root / "uv-cold", True), ("again", root / "uv-cold", False)):
            os.environ["UV_CACHE_DIR"] = str(cache)
            rows.append((name, *_timed(replace(given, cache=root / "cache", pack_mirror=str(root / "mirrors")), packs, fresh=fresh)))
        for name, seconds, ids, packages in rows:
            print(f"lock, {name:<6} {seconds:7.2f} s   {packages} packages, id {ids}")
        again = rows[-1][1]
        print(f"again is {rows[0][1] / again:,.0f} times quicker than cold; budget {BUDGET_AGAIN_S:g} s: {'kept' if again <= BUDGET_AGAIN_S else 'MISSED'}")
        if len({row[2] for row in rows}) != 1:
            print("the three are not one lock")
            return 1
        return 0 if again <= BUDGET_AGAIN_S else 1
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _timed(sources: Sources, packs: list, *, fresh: bool) -> tuple[float, str, int]:
    version = SimpleNamespace(workflow_id=None)
    target = replace(Target.of_settings(), base_image="debian:bookworm-slim@sha256:" + "b" * 64)
    times = []
    for _ in range(1 if fresh else 5):
        started = time.perf_counter()
        made = making.prepare(version=version, sources=sources, target=target, report=lock_world.report(*packs), upgrade=fresh)
        times.append(time.perf_counter() - started)
    return statistics.median(times), made.sha256[:12], len(made.document["python_packages"])


if __name__ == "__main__":
    raise SystemExit(main())
