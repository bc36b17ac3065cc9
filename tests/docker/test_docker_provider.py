"""Containers of the Docker provider on a real engine: what each limit does, who finds them again, and how each thing that goes wrong is told."""

from __future__ import annotations

import io
import json
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet import tokens, workers
from fleet.models import Pool, Worker
from fleet.providers import docker as provider_module
from fleet.providers import docker_container
from fleet.providers.base import Instance, NoCapacity, Refused, Unavailable
from fleet.providers.docker import Docker
from tests import factories

pytestmark = pytest.mark.django_db
TAG = "comfyplane-test/tiny-worker:1"
SMALL = {"memory_mib": 128, "restarts": 0, "network": "none-of-these", "url": "http://10.0.0.1:8000", "pids": 40}


@pytest.fixture(scope="module")
def tiny(docker_client: Any, base: str) -> str:
    """An image of a few seconds: the base with one script that does what it is told."""
    script = Path(__file__).with_name("tiny_worker.py").read_bytes()
    recipe = f'FROM {base}\nCOPY --chown=10001:10001 models /opt/ComfyUI/models\nCOPY worker.py /worker.py\nENTRYPOINT ["python3", "/worker.py"]\n'
    context = io.BytesIO(_tar({"Dockerfile": recipe.encode(), "worker.py": script, "models/put_models_here": b""}))
    image, _ = docker_client.images.build(fileobj=context, custom_context=True, tag=TAG, rm=True)
    return str(image.id)


@pytest.fixture
def provider(docker_host: str, docker_client: Any, settings: Any) -> Iterator[Docker]:
    """A provider of an installation of its own, whose containers go with the test."""
    settings.BUILD = {**settings.BUILD, "DOCKER_HOST": docker_host}
    made = Docker(installation=secrets.token_hex(8))
    yield made
    for row in docker_client.api.containers(all=True, filters={"label": f"{docker_container.INSTALLATION}={made.installation}"}):
        docker_client.api.remove_container(row["Id"], force=True, v=True)


@pytest.fixture
def pool(provider: Docker, tiny: str, now: datetime) -> Pool:
    return factories.make_pool(now=now, provider="docker", image=tiny, gpu="cpu", settings={**SMALL, "network": "bridge"})


def ordered(pool: Pool, do: str = "stay", *, now: datetime, **more: Any) -> Worker:
    pool.settings = {**pool.settings, **more, "env": {"DO": do, **more.get("env", {})}}
    mark = secrets.token_hex(4)
    return Worker.objects.create(
        pool=pool, name=f"w-{mark[:4]}", instance=f"{pool.slug}-{mark}", state="ordered", state_since=now, ordered_at=now, image=pool.image, gpu="cpu"
    )


def seen(provider: Docker, worker: Worker) -> Instance | None:
    return provider.observe(worker.pool).instances.get(worker.instance)


def until(true: Callable[[], Any], *, seconds: float = 40.0, what: Callable[[], object] = lambda: "it did not come true in time") -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, what()
        time.sleep(0.05)
    return found


def said(provider: Docker, ref: dict[str, Any], words: str) -> list[str]:
    """What it wrote, once it wrote these words."""
    return until(lambda: (lines := provider.boot_log(ref)) and any(words in line for line in lines) and lines, what=lambda: provider.boot_log(ref))


def test_a_worker_can_do_its_work_and_nothing_else(provider: Docker, pool: Pool, docker_client: Any, now: datetime) -> None:
    worker = ordered(pool, "probe", now=now, scratch_mib=64, cpus=0.5)
    ref = provider.launch(worker)
    told = _told(docker_client, ref)
    assert (told["uid"], told["gid"]) == (10001, 10001)
    assert told["parent"] in ("docker-init", "tini"), "an init reaps and passes signals on"
    assert told["capabilities"] == told["bounding"] == "0" * 16
    assert told["no_new_privileges"] == "1" and told["seccomp"] == "2"
    refused = {path for path, how in told["writes"].items() if how != "written"}
    assert refused == {"/new", "/opt/new", "/etc/passwd"} and told["data_mib"] == 64
    assert told["forks"][0] < 40 and told["forks"][1], "there is an end to its processes"
    config = docker_client.api.inspect_container(ref["container"])
    host = config["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"] and host["Init"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (128 * 1024**2, 128 * 1024**2, 40, 500_000_000)
    assert host["Privileged"] is False and not host["Binds"] and not host["Devices"] and not host["DeviceRequests"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert config["Config"]["User"] == "10001:10001" and config["Config"]["StopTimeout"] == 120
    assert {"COMFYPLANE_URL", "COMFYPLANE_POOL_TOKEN", "COMFYPLANE_INSTANCE", "COMFYPLANE_WORKER_NAME"} <= set(told["environment"])
    assert not {"SECRET_KEY", "DATABASE_URL"} & set(told["environment"])
    labels = config["Config"]["Labels"]
    assert (labels[docker_container.POOL], labels[docker_container.INSTANCE], labels[docker_container.WORKER]) == (pool.slug, worker.instance, worker.name)


def test_one_that_needs_too_much_memory_is_killed_and_says_so(provider: Docker, pool: Pool, now: datetime) -> None:
    worker = ordered(pool, "eat", now=now, memory_mib=96)
    provider.launch(worker)
    found = until(lambda: (one := seen(provider, worker)) and one.phase == "ended" and one)
    assert found.failed and found.why.startswith("It needed more than its 96 MiB of memory")


def test_what_was_launched_is_found_again_by_whoever_comes_next(provider: Docker, pool: Pool, docker_host: str, tiny: str, now: datetime) -> None:
    worker = ordered(pool, now=now)
    ref = provider.launch(worker)
    assert provider.launch(worker) == ref, "one instance is one container"
    successor = Docker(installation=provider.installation)
    assert successor.launch(worker) == ref
    found = successor.observe(pool).instances
    assert list(found) == [worker.instance]
    one = found[worker.instance]
    assert (one.ref, one.phase, one.failed, one.image, one.gpu) == (ref, "running", False, tiny, "cpu")
    assert Docker(installation="somebody-else").observe(pool).instances == {}, "another installation sees nothing of it"
    other = factories.make_pool(now=now, provider="docker", settings=pool.settings)
    assert provider.observe(other).instances == {}


def test_one_that_is_asked_to_leave_does_and_does_not_come_back(provider: Docker, pool: Pool, now: datetime) -> None:
    worker = ordered(pool, now=now, restarts=5)
    ref = provider.launch(worker)
    said(provider, ref, "here")
    provider.stop(ref)
    found = until(lambda: (one := seen(provider, worker)) and one.phase == "ended" and one)
    assert not found.failed and found.why == "It left by itself."
    assert "leaving in order" in provider.boot_log(ref)[-1]
    provider.stop(ref)  # stopping what is gone does nothing
    provider.stop(ref, force=True)
    provider.forget(worker.instance, ref)
    assert seen(provider, worker) is None
    provider.stop(ref, force=True)
    provider.forget(worker.instance, ref)
    assert provider.boot_log(ref) == []


def test_one_that_does_not_listen_is_ended(provider: Docker, pool: Pool, now: datetime) -> None:
    worker = ordered(pool, "deaf", now=now, restarts=5)
    ref = provider.launch(worker)
    said(provider, ref, "here")
    provider.stop(ref)
    assert seen(provider, worker).phase == "running"
    provider.stop(ref, force=True)
    found = until(lambda: (one := seen(provider, worker)) and one.phase == "ended" and one)
    assert found.failed and "killed" in found.why and "(exit code 137)" in found.why


def test_one_that_fails_is_started_again_so_often_and_no_more(provider: Docker, pool: Pool, now: datetime) -> None:
    worker = ordered(pool, "exit 4", now=now, restarts=2)
    provider.launch(worker)
    found = until(lambda: (one := seen(provider, worker)) and one.phase == "ended" and one)
    assert found.failed
    assert found.why == "Its ComfyUI crashed again and again (exit code 4), after the engine had started it again 2 times."


def test_a_paused_one_is_still_there_and_can_be_ended(provider: Docker, pool: Pool, docker_client: Any, now: datetime) -> None:
    worker = ordered(pool, now=now)
    ref = provider.launch(worker)
    said(provider, ref, "here")
    docker_client.api.pause(ref["container"])
    found = seen(provider, worker)
    assert (found.phase, found.why) == ("running", "It is paused on its machine.")
    provider.stop(ref, force=True)
    until(lambda: seen(provider, worker).phase == "ended")


def test_a_missing_image_is_refused(provider: Docker, pool: Pool, now: datetime) -> None:
    pool.image = "sha256:" + "ab" * 32
    with pytest.raises(Refused, match=r"does not have the image.*push it to a registry"):
        provider.launch(ordered(pool, now=now))
    pool.image = "comfyplane-test/nobody-built-this:1"
    with pytest.raises(Refused, match="does not have the image"):
        provider.launch(ordered(pool, now=now, pull="never"))
    pool.image = ""
    with pytest.raises(Refused, match="has no image"):
        provider.launch(ordered(pool, now=now))
    assert provider.observe(pool).instances == {}


def test_an_image_of_a_registry_is_fetched_meanwhile(provider: Docker, pool: Pool, registry: str, docker_client: Any, now: datetime) -> None:
    name = f"{registry}/tiny"
    # Nothing is in it, so that it is quickly there; that it can be launched at all proves that it is there.
    docker_client.api.import_image_from_data(_tar({"x": b""}), repository=name, tag="1", changes=['CMD ["/nothing"]'])
    docker_client.api.push(name, tag="1")
    docker_client.images.remove(f"{name}:1")
    pool.image = f"{name}:1"
    with pytest.raises(Unavailable, match="is being fetched") as waiting:
        provider.launch(ordered(pool, now=now))
    assert waiting.value.retry_after_s

    def outcome() -> str:
        try:
            provider.launch(ordered(pool, now=now))
        except Refused as error:
            return str(error)
        except Unavailable:
            return ""
        return "launched"

    try:
        assert until(outcome, seconds=30) == "launched"
        (found,) = until(lambda: [one for one in provider.observe(pool).instances.values() if one.phase == "ended"])
        assert found.failed and found.why == "Its program was not found (exit code 127)."
        provider.forget(found.name, found.ref)
        pool.image = f"{name}:2"
        assert "cannot be fetched" in until(outcome, seconds=30)
    finally:
        docker_client.images.remove(f"{name}:1")


def test_a_gpu_that_is_not_there_is_told_and_nothing_is_left_behind(provider: Docker, pool: Pool, now: datetime) -> None:
    pool.gpu = "L4"
    worker = ordered(pool, now=now)
    worker.gpu = "L4"
    with pytest.raises(NoCapacity, match="cannot give the GPU"):
        provider.launch(worker)
    assert provider.observe(pool).instances == {}


def test_named_gpus_are_given_out_until_there_are_no_more(provider: Docker, pool: Pool, docker_client: Any, tiny: str, now: datetime) -> None:
    theirs = {docker_container.DEVICES: "0,1", docker_container.INSTALLATION: provider.installation}
    docker_client.containers.create(tiny, labels=theirs)
    worker = ordered(pool, now=now, devices=["0", "1"])
    worker.gpu = "L4"
    with pytest.raises(NoCapacity, match="0 of the 2 GPUs"):
        provider.launch(worker)
    pool.settings["devices"] = ["0", "1", "2"]
    with pytest.raises(NoCapacity, match="cannot give the GPU"):  # the third is asked for, and this machine has none
        provider.launch(worker)


def test_a_network_that_is_not_there_is_refused_and_nothing_is_left_behind(provider: Docker, pool: Pool, now: datetime) -> None:
    with pytest.raises(Refused, match="none-of-these"):
        provider.launch(ordered(pool, now=now, network="none-of-these"))
    assert provider.observe(pool).instances == {}


def test_an_address_that_containers_cannot_reach_is_refused(provider: Docker, pool: Pool, settings: Any, now: datetime) -> None:
    settings.AGENT_URL = "http://127.0.0.1:8000"
    with pytest.raises(Refused, match="cannot reach the control plane"):
        provider.launch(_without_url(pool, now))


def test_a_launch_that_was_cut_short_is_finished(provider: Docker, pool: Pool, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    first, second = ordered(pool, now=now), ordered(pool, now=now)
    with monkeypatch.context() as cut:
        cut.setattr(Docker, "_start", lambda *_: None)  # the controller was killed here
        refs = [provider.launch(worker) for worker in (first, second)]
    found = provider.observe(pool).instances
    assert {one.phase for one in found.values()} == {"pending"} and not any(one.failed for one in found.values())
    assert provider.launch(first) == refs[0]
    assert seen(provider, first).phase == "running"
    assert seen(provider, second).phase == "pending", "whoever makes it may still be at it"
    monkeypatch.setattr(provider_module, "HALF_LAUNCHED_S", -5.0)
    provider.observe(pool)
    assert seen(provider, second).phase == "running"


def test_a_launch_that_was_cut_short_can_be_ended(provider: Docker, pool: Pool, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    worker = ordered(pool, now=now)
    with monkeypatch.context() as cut:
        cut.setattr(Docker, "_start", lambda *_: None)
        ref = provider.launch(worker)
    provider.stop(ref, force=True)
    assert seen(provider, worker) is None


def test_a_strangers_container_of_that_name_is_left_alone(provider: Docker, pool: Pool, docker_client: Any, tiny: str, now: datetime) -> None:
    worker = ordered(pool, now=now)
    stranger = docker_client.containers.create(tiny, name=docker_container.name_of(provider.installation, worker.instance))
    try:
        with pytest.raises(Refused, match="not ours"):
            provider.launch(worker)
        stranger.reload()
        assert stranger.status == "created"
    finally:
        stranger.remove(force=True)


def test_what_a_worker_writes_is_bounded_and_harmless(provider: Docker, pool: Pool, now: datetime) -> None:
    worker = ordered(pool, "shout", now=now, memory_mib=256)
    ref = provider.launch(worker)
    lines = said(provider, ref, "the end")
    assert lines[-1] == "the end" and len(lines) <= 40
    assert all(len(line) <= 500 and line.isprintable() for line in lines)
    assert sum(map(len, lines)) < 30_000


def test_the_token_can_be_kept_out_of_what_the_engine_shows(provider: Docker, pool: Pool, docker_client: Any, tmp_path: Path, now: datetime) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "token"
    file.write_text(tokens.pool_token(pool))
    file.chmod(0o644)
    ref = provider.launch(ordered(pool, "probe", now=now, token_file=str(file)))
    assert _told(docker_client, ref)["token_file"] == tokens.pool_token(pool)
    assert tokens.pool_token(pool) not in json.dumps(docker_client.api.inspect_container(ref["container"]))


def test_models_are_kept_between_workers_and_working_files_are_not(provider: Docker, pool: Pool, docker_client: Any, now: datetime) -> None:
    volume = f"comfyplane-test-{secrets.token_hex(4)}"
    try:
        kept = "/opt/ComfyUI/models/kept"
        first = ordered(pool, "probe", now=now, store=volume, scratch="disk", env={"WRITES": f"{kept}:/data/x"})
        ref = provider.launch(first)
        told = _told(docker_client, ref)
        assert told["writes"][kept] == "written", "the volume belongs to the worker's user"
        assert "COMFYPLANE_STORE_DIR" in told["environment"]
        mounts = {m["Destination"]: m["Name"] for m in docker_client.api.inspect_container(ref["container"])["Mounts"]}
        assert mounts["/opt/ComfyUI/models"] == volume
        provider.forget(first.instance, ref)
        names = {one["Name"] for one in docker_client.api.volumes()["Volumes"]}
        assert volume in names and mounts["/data"] not in names
    finally:
        docker_client.api.remove_volume(volume, force=True)


def test_rows_and_containers_are_brought_together(provider: Docker, pool: Pool, now: datetime) -> None:
    rows = []
    for do in ("stay", "stay", "stay", "eat"):
        rows.append(ordered(pool, do, now=now))
        provider.launch(rows[-1])  # and the controller ended before it noted where
    ours, retired, unknown, eats = rows
    Worker.objects.filter(id=retired.id).update(state="stopped", stopped_at=now - timedelta(minutes=1))
    unknown.delete()

    def round_() -> list[str]:
        return workers.look_after(pool, provider=provider, fence=lambda: None, now=now)

    until(lambda: round_() is None or list(provider.observe(pool).instances) == [ours.instance], what=lambda: provider.observe(pool).instances)
    ours.refresh_from_db()
    assert ours.provider_ref == provider.launch(ours) and ours.stopped_at is None
    eats.refresh_from_db()
    assert (eats.state, eats.stop_reason) == ("stopped", "vanished")
    assert eats.stop_message.startswith("It needed more than its 128 MiB of memory") and eats.engine_log == ["here eat"]


def test_launching_and_finding_again_are_quick(provider: Docker, pool: Pool, now: datetime) -> None:
    workers = [ordered(pool, now=now) for _ in range(4)]
    began = time.monotonic()
    for worker in workers:
        provider.launch(worker)
    launching = (time.monotonic() - began) / len(workers)
    successor = Docker(installation=provider.installation)
    began = time.monotonic()
    assert len(successor.observe(pool).instances) == 4
    finding = time.monotonic() - began
    print(f"launch {launching:.2f} s each, adoption of 4 {finding:.3f} s")
    assert launching < 10 and finding < 5


def _told(docker_client: Any, ref: dict[str, Any]) -> dict[str, Any]:
    """What the probe found, read whole."""

    def lines() -> list[str]:
        return [x for x in docker_client.api.logs(ref["container"]).decode().splitlines() if x.startswith("{")]

    return dict(json.loads(until(lines)[0]))


def _without_url(pool: Pool, now: datetime) -> Worker:
    pool.settings = {name: value for name, value in pool.settings.items() if name != "url"}
    return ordered(pool, now=now)


def _tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()
