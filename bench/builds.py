"""What a rebuild costs: `python bench/builds.py`. Needs a Docker engine (DOCKER_HOST), or root to start one.

Builds a stand-in for ComfyUI with two packs, or the lock document that BENCH_LOCK names (with BUILD_* as for real builds;
its first pack must then come from a git directory under BUILD_PACK_MIRROR that may be committed to). Prints seconds,
steps from the cache, and the ratio to the first build, all measured in one run.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "docker")]

import docker_world as world  # noqa: E402

LIMITS = {"same lock": 1.0, "workflow only": 5.0, "one pack": 60.0}


def main() -> int:
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-builds-", ignore_cleanup_errors=True)))
        host = next(
            (h for h in (os.environ.get("BUILD_DOCKER_HOST"), os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock") if h and world.answers(h)), ""
        )
        if not host:
            if os.getuid() or not shutil.which("dockerd"):
                print("builds: no Docker engine answers, and none can be started here; not measured")
                return 0
            host = stack.enter_context(world.engine(scratch))
        ca = "/etc/ssl/certs/ca-certificates.crt"
        defaults = {
            "DATA_DIR": str(scratch / "data"),
            "BUILD_DOCKER_HOST": host,
            "BUILD_NETWORK": "host",
            "BUILD_CA_BUNDLE": ca if Path(ca).is_file() else "",
            "BUILD_PACK_MIRROR": str(scratch / "mirror"),
            "BUILD_COMFYUI_SOURCE": str(scratch / "mirror" / "ComfyUI"),
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "LOG_LEVEL": "ERROR",
        }
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        return measure(scratch)


def measure(scratch: Path) -> int:
    import django

    django.setup()
    import docker
    import factories
    from django.conf import settings
    from django.core.management import call_command
    from django.utils import timezone

    from builds.images import asking, building, running, telling
    from builds.locking import document as lock_document
    from builds.models import Lock, VersionLock

    call_command("migrate", verbosity=0)
    client = docker.DockerClient(base_url=settings.BUILD["DOCKER_HOST"], timeout=120)
    mirror = Path(settings.BUILD["PACK_MIRROR"])
    given = os.environ.get("BENCH_LOCK", "")
    document = json.loads(Path(given).read_text()) if given else standin(client, mirror, scratch)
    now = timezone.now()
    version = factories.make_version(factories.make_workflow(now=now), now=now)
    first = 0.0
    failed = False

    def build(name: str, wanted: dict[str, Any]) -> None:
        nonlocal first, failed
        wanted = lock_document.normal(wanted)
        lock, _ = Lock.objects.get_or_create(sha256=lock_document.sha256(wanted), defaults={"document": wanted, "created_at": now, "created_by": "bench"})
        VersionLock.objects.filter(version=version).delete()
        VersionLock.objects.create(version=version, lock=lock, made_at=timezone.now(), made_by="bench")
        began = time.perf_counter()
        asked = asking.ask(version=version, actor="bench", now=timezone.now())
        done = asked if asked.state == "succeeded" else running.run(asked.id, clock=timezone.now)
        took = time.perf_counter() - began
        first = first or took
        cache = telling.cache(list(done.steps.all()))
        limit = LIMITS.get(name)
        bad = done.state != "succeeded" or (limit is not None and took > limit)
        failed = failed or bad
        verdict = f"limit {limit:g} s{', MISSED' if bad else ''}" if limit else ""
        print(f"{name:24} {done.state:10} {took:8.2f} s  {took / first:6.1%} of the first  {cache['cached']:3} of {cache['steps']:3} steps cached  {verdict}")
        if done.state != "succeeded":
            print(json.dumps(building.find(done.id).error, indent=1))

    print("builds: time of a rebuild after each kind of change")
    build("first", document)
    build("same lock", document)
    changed = copy.deepcopy(document)
    changed["models"] = [{"directory": "checkpoints", "filename": "bench.safetensors", "sha256": "0" * 64, "size_bytes": 1, "urls": [], "licence": ""}]
    build("workflow only", changed)
    pack = changed["packs"][0]
    source = mirror / pack["folder"]
    (source / "bench.py").write_text(f"AT = {time.time()}\n")
    world.git(source, "add", "-A")
    world.git(source, "commit", "-q", "-m", "bench")
    pack["commit"] = world.git(source, "rev-parse", "HEAD")
    build("one pack", changed)
    ours = [s for s in building.find(_newest()).steps.all() if s.size_bytes and (s.stage in ("os", "image") or "--from=tools" in s.name)]
    total = sum(s.size_bytes or 0 for s in ours) / 1e6
    print(f"layers that are ours over ComfyUI's own: {total:.2f} MB in {len(ours)} layers, limit 60 MB")
    client.close()
    return int(failed or total > 60)


def _newest() -> Any:
    from builds.models import Build

    return Build.objects.latest("requested_at").id


def standin(client: Any, mirror: Path, scratch: Path) -> dict[str, Any]:
    """The stand-in with two packs."""
    kept = os.environ.get("COMFYPLANE_TEST_CACHE")
    base = world.base_image(client, Path(kept) if kept else scratch / "base")
    commits = {
        "ComfyUI": world.standin(mirror / "ComfyUI"),
        "brighten": world.repository(mirror / "brighten", {"__init__.py": world.BRIGHTEN}),
        "mirror": world.repository(mirror / "mirror", {"__init__.py": world.TABLE, "install.py": world.INSTALL, "at.txt": str(time.time())}),
    }
    packs = [
        world.pack("brighten", commits["brighten"], classes=["TestBrighten"]),
        world.pack("mirror", commits["mirror"], classes=["TestMirror"], install=True),
    ]
    classes = ["EmptyImage", "SaveImage", "TestBrighten", "TestMirror"]
    made = world.document(comfyui="https://example.com/test/ComfyUI", commit=commits["ComfyUI"], packs=packs, classes=classes)
    made["base_image"]["digest"] = base
    return made


if __name__ == "__main__":
    sys.exit(main())
