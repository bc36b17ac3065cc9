"""One build from claim to end: context, BuildKit, checks inside the container, SBOM, vulnerabilities, push.

Every outcome is a state with its reason. Nothing is published before all checks passed: the tag that others pull is
pushed last. Whoever is killed here leaves a lease that runs out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections, connection

from builds.images import building, checking, context, dockerfile, failures, learning, pushing, sbom, vulnerabilities
from builds.images.building import Claim, Lost
from builds.images.docker_cli import Docker, generated_pip_conf
from builds.images.journal import Canceled, Journal
from builds.images.layers import sizes
from builds.images.progress import Progress
from builds.locking.sources import Sources
from builds.models import Build
from controlplane.kernel import blobs
from controlplane.kernel.errors import Invalid, WorkflowError

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]
MAX_SBOM = 50_000_000
_LOOK_S = 0.5
_BEAT_S = 1.0


def run(build_id: UUID, *, clock: Clock, follow: Callable[[str], None] = lambda _: None, push: bool = True) -> Build:
    """Build it, if nobody does. Idempotent: a build that ended or is being built is left alone. Returns the row as it is then."""
    held = building.claim(build_id, now=clock())
    if held is None:
        return building.find(build_id)
    journal = Journal(held, clock=clock, follow=follow)
    try:
        with contextlib.ExitStack() as files, _heartbeat(held, journal, clock):
            _run(held, journal, clock, files, push=push)
    except Lost:
        log.warning("build lost to another process", extra={"build": str(build_id)})
    except Canceled:
        _end(journal, lambda: building.canceled(held, now=clock()))
    except WorkflowError as error:
        told, step = failures.plain(error), str(error.details.get("step") or journal.current)
        _end(journal, lambda: building.fail(held, error=told, step=step, now=clock()))
    except Exception as error:  # a bug here must end the build, not leave it to be tried again and again
        log.exception("build failed", extra={"build": str(build_id)})
        told = failures.of_builder(error)
        _end(journal, lambda: building.fail(held, error=told, step=journal.current, now=clock()))
    except BaseException:  # Ctrl-C at the command line
        _end(journal, lambda: building.canceled(held, now=clock()))
        raise
    return building.find(build_id)


def publish(build_id: UUID, *, clock: Clock, follow: Callable[[str], None] = lambda _: None) -> Build:
    """Push the image of a build that went well, if it is not in the registry yet. Raises Unavailable `push_failed`."""
    build, options = building.find(build_id), settings.BUILD
    if options["REGISTRY"] and not build.digest:
        docker = Docker.of_settings()
        repository, tag = pushing.name(registry=options["REGISTRY"], image_name=options["IMAGE_NAME"], lock_id=build.lock_id)
        with docker.client() as client:
            client.images.get(build.image_id).tag(repository, tag)
        digest = pushing.push(docker, repository=repository, tag=tag, credentials=options["REGISTRY_CREDENTIALS"], say=follow)
        building.pushed(build, image=f"{repository}:{tag}", digest=digest, now=clock())
    return building.find(build_id)


def _end(journal: Journal, end: Callable[[], Build]) -> None:
    with contextlib.suppress(Lost):
        journal.flush()
        end()


def _run(held: Claim, journal: Journal, clock: Clock, held_files: contextlib.ExitStack, *, push: bool) -> None:
    build, options = held.build, settings.BUILD
    document, lock_id = build.lock.document, build.lock_id
    docker = Docker.of_settings()
    packed_file = held_files.enter_context(tempfile.TemporaryFile(prefix="comfyplane-context-"))  # noqa: SIM115 - the stack closes it
    with journal.step("Prepare the sources"):
        journal.say(f"Docker {docker.check()} at {docker.host}")
        text = _dockerfile(document, lock_id, docker)
        building.note(held, now=clock(), dockerfile=text)
        sources = Sources.of_settings()
        packed = context.write(document, text=text, sources=sources, agent=_agent(), out=packed_file, say=journal.say)
        journal.say(f"context of {sum(packed.sizes.values()):,} bytes, sha256 {packed.sha256[:12]}")
        for sentence in packed.notes:
            journal.say(sentence)
        journal.stop_if_asked()
    repository, tag = pushing.name(registry=options["REGISTRY"], image_name=options["IMAGE_NAME"], lock_id=lock_id)
    image_id = _build(held, journal, docker, packed_file, tag=f"{repository}:{tag}", deadline=time.monotonic() + options["TIMEOUT_S"])
    size, content = _inspect(held, journal, docker, image_id)
    with journal.step("Start ComfyUI inside and import every node class"):
        found, facts = _started(content, image_id, docker, journal, clock)
        classes = checking.require(document["classes"], found, packs=document["packs"]) | {"content": content, "facts": facts}
        journal.say(f"{classes['wanted']} of {classes['wanted']} classes of the lock came up, {classes['found']} in all, in {classes['seconds']:g} s")
        building.note(held, now=clock(), classes=classes)
    with journal.step("Write the SBOM and look up known vulnerabilities"):
        bom = sbom.make(document, lock_id=lock_id, image=repository, image_id=image_id, python=found.python, debian=found.debian, now=clock())
        kept = blobs.put(io.BytesIO(bom), media_type=sbom.MEDIA_TYPE, max_bytes=MAX_SBOM, now=clock())
        report = vulnerabilities.report(found.python, database=options["ADVISORIES"], uncovered=["Debian packages", "ComfyUI", "node packs"])
        journal.say(report["reason"] if report["scanner"] is None else f"{len(report['found'])} known vulnerabilities in {report['packages']} packages")
    digest = ""
    if options["REGISTRY"] and push:
        with journal.step(f"Push {repository}:{tag}"):
            digest = pushing.push(
                docker, repository=repository, tag=tag, credentials=options["REGISTRY_CREDENTIALS"], say=journal.say, stop=journal.asked_to_stop
            )
            journal.say(f"digest {digest}")
    journal.stop_if_asked()
    journal.flush()
    learning.keep(build, document, found.object_info, now=clock())
    building.succeed(
        held,
        now=clock(),
        image=f"{repository}:{tag}",
        image_id=image_id,
        digest=digest,
        size_bytes=size,
        sbom_sha256=kept.sha256,
        vulnerabilities=report,
        notes=packed.notes,
        classes=classes,
        dockerfile=text,
    )


def _dockerfile(document: dict[str, Any], lock_id: str, docker: Docker) -> str:
    options, base = settings.BUILD, document["base_image"]
    reference = str(base.get("reference") or options["BASE_IMAGE"])
    has_conf = bool(docker.pip_conf or options["PACKAGE_INDEX"] or options["FIND_LINKS"])
    chosen = dockerfile.Settings(
        base=docker.base(reference, str(base.get("digest") or "")),
        os_packages=tuple(options["OS_PACKAGES"]),
        build_packages=tuple(options["TOOLS"]),
        pack_install_s=options["PACK_INSTALL_S"],
        has_ca=bool(docker.ca_bundle),
        has_pip_conf=has_conf,
        base_name=reference,
        base_digest=str(base.get("digest") or ""),
        agent_version=context.agent_version(_agent()),
    )
    return dockerfile.render(document, chosen, lock_id=lock_id)


def _agent() -> Path:
    return Path(settings.BASE_DIR) / "fleet" / "agent"


def _build(held: Claim, journal: Journal, docker: Docker, packed: Any, *, tag: str, deadline: float) -> str:
    """Run BuildKit and write down what it says. Returns the image's id."""
    options = settings.BUILD
    progress = Progress()
    packed.seek(0)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyplane-build-")))
        if not docker.pip_conf:
            conf = stack.enter_context(generated_pip_conf(options["PACKAGE_INDEX"], tuple(options["FIND_LINKS"])))
            docker = replace(docker, pip_conf=conf)
        iidfile = scratch / "image"
        running = docker.build(packed, tag=tag, labels={}, iidfile=iidfile)
        try:
            while (lines := running.lines(wait_s=_LOOK_S)) is not None:
                for line in lines:
                    journal.take(progress, line)
                journal.flush()
                journal.stop_if_asked()
                if time.monotonic() > deadline:
                    raise failures.timed_out(options["TIMEOUT_S"], journal.current)
        finally:
            running.end()
        code = running.wait()
        journal.settle(progress)
        journal.flush()
        if code or not iidfile.is_file():
            raise failures.of_build(progress, code, pack_install_s=options["PACK_INSTALL_S"])
        return iidfile.read_text().strip()


def _started(content: str, image_id: str, docker: Docker, journal: Journal, clock: Clock) -> tuple[checking.Found, str]:
    """What comes up inside, and the blob it is kept in. Equal contents were started before: they are not started again."""
    options = settings.BUILD
    for earlier in Build.objects.filter(classes__content=content).order_by("-requested_at")[:3]:
        with contextlib.suppress(WorkflowError, ValueError, TypeError):
            found = checking.recalled(blobs.read(str(earlier.classes["facts"]), checking.MAX_OUTPUT))
            journal.say(f"All but the lock's own layer is as in the image of {earlier.finished_at:%Y-%m-%d %H:%M}, which was started then")
            return found, str(earlier.classes["facts"])
    found = checking.boot(docker, image_id, memory_mib=options["CHECK_MEMORY_MIB"], seconds=options["CHECK_S"], stop=journal.asked_to_stop)
    journal.stop_if_asked()
    for line in found.log[-60:]:
        journal.say(line)
    written = blobs.put(io.BytesIO(checking.kept(found)), media_type="application/json", max_bytes=2 * checking.MAX_OUTPUT, now=clock())
    return found, written.sha256


def _inspect(held: Claim, journal: Journal, docker: Docker, image_id: str) -> tuple[int, str]:
    """The image's size, and a word for its content. Raises Invalid `platform_wrong` where the engine made another kind than was asked for."""
    with docker.client() as client:
        image = client.images.get(image_id)
        made = f"{image.attrs.get('Os')}/{image.attrs.get('Architecture')}"
        journal.measured(sizes(journal.built, image.history()))
        journal.flush()
        if made != held.build.platform:
            raise Invalid("platform_wrong", f"The engine made an image for {made}, not {held.build.platform}.", "Build with an engine of that kind.")
        return int(image.attrs.get("Size") or 0), checking.content_of(image.attrs)


@contextlib.contextmanager
def _heartbeat(held: Claim, journal: Journal, clock: Clock) -> Iterator[None]:
    """Keep the lease while something takes long without a word, and hear a cancel."""
    ending = threading.Event()

    def beat() -> None:
        try:
            while not ending.wait(_BEAT_S):
                try:
                    close_old_connections()
                    if building.renew(held, now=clock()):
                        journal.ask_to_stop()
                except Lost:
                    journal.ask_to_stop(lost=True)
                    return
                except Exception:  # a database that is away for a moment must not cost a build that says nothing just now
                    log.warning("heartbeat of a build failed", exc_info=True)
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name="build-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(5.0)
