"""Workers as containers. What there is, is read from the engine by labels; nothing is remembered.

A container's name holds the installation and the instance, and an engine gives a name once: whoever launches an instance
again finds the first one. Two installations on one engine never see each other's containers, but share its GPUs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from controlplane.kernel.errors import Invalid
from fleet import tokens
from fleet.models import Pool, PoolOffer, Worker
from fleet.providers import docker_container as container
from fleet.providers import docker_pull, docker_reading, docker_settings
from fleet.providers.base import Instance, NoCapacity, Observed, ProviderError, Ref, Refused, Unavailable
from fleet.providers.docker_engine import CHANGE_S, Engine, Gone, MissingImage, Taken
from fleet.providers.docker_settings import Options
from fleet.providers.settings import checked

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Engines asked at the same time."""
LOOKED_FOR = timedelta(hours=24)
"""How long after its end a worker's container is still looked for on an engine that the pool no longer names."""
HALF_LAUNCHED_S = 30.0
MOST_DETAILS = 50
MOST_FINISHED = 4


class Docker:
    """Containers of one installation, on as many engines as its pools and their offers name."""

    orders = True
    counted = False
    knows = True

    def __init__(self, *, installation: str = "", clock: Callable[[], datetime] = timezone.now) -> None:
        self.clock = clock
        self.installation = installation or salted_hmac("comfyplane.installation", "docker", algorithm="sha256").hexdigest()[:16]
        self._engines: dict[tuple[str, str], Engine] = {}
        self._pulls = docker_pull.Pulls()
        self._lock = threading.Lock()

    def observe(self, pool: Pool) -> Observed:
        """Every container of this pool on every engine it may use or has workers on, as far as they answer. None that does raises Unavailable."""
        places = self._places(pool)
        with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(places)), thread_name_prefix="observe") as threads:
            looks = list(threads.map(lambda place: self._look(place, pool), places))
        answered = {place[0] for place, look in zip(places, looks, strict=True) if not isinstance(look, ProviderError)}
        # Certificates that an engine was used with before may be gone: it is silent only when it answers none of its ways.
        failed = {place[0]: look for place, look in zip(places, looks, strict=True) if isinstance(look, ProviderError)}
        silent = {host: why for host, why in failed.items() if host not in answered}
        if len(silent) == len({host for host, _ in places}):
            why = next(iter(silent.values()))
            raise why if isinstance(why, Unavailable) else Unavailable(str(why)) from why
        closed = frozenset(offer for place, offers in places.items() if place[0] in silent for offer in offers)
        found = {seen.name: seen for look in looks if not isinstance(look, ProviderError) for seen in look}
        return Observed(found, silent={host: str(why) for host, why in silent.items()}, closed=closed)

    def launch(self, worker: Worker) -> Ref:
        pool, image = worker.pool, worker.image or worker.pool.image
        if not image:
            raise Refused("The pool has no image. Build one, or write its name into the pool.")
        options = self._options(pool, worker.offer)
        engine = self.engine(options.host, options.tls_dir)
        try:
            made = self._create(engine, worker, image, options)
        except MissingImage as missing:
            if options.pull != "missing":
                raise
            self._pulls.fetch(engine, image, missing)
            raise AssertionError("not reached") from missing
        self._start(engine, made)
        return container.ref(made, options.host, options.tls_dir)

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise Refused("Containers are launched one by one.")

    def tend(self, pool: Pool) -> list[str]:
        return []

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        """SIGTERM makes the agent finish its job and leave; the engine does not start it again after a signal of ours."""
        id_ = docker_reading.id_of(ref)
        if not id_:
            return
        engine = self._engine_of(ref)
        try:
            engine.call(lambda api: api.kill(id_, "SIGKILL" if force else "SIGTERM"), within_s=CHANGE_S)
        except Gone:
            return
        except Taken:  # not running: it ended, waits to be started again, or never was
            state = self._state(engine, id_)
            if force and state in ("created", "restarting"):
                self._remove(engine, id_)
            elif state == "restarting":
                # Stopping is what ends the engine's own tries.
                with contextlib.suppress(Gone, Taken):
                    engine.call(lambda api: api.stop(id_, timeout=0), within_s=CHANGE_S)

    def boot_log(self, ref: Ref, *, lines: int = 40) -> list[str]:
        if not docker_reading.id_of(ref):
            return []
        try:
            return self._engine_of(ref).call(lambda api: docker_reading.read(api, docker_reading.id_of(ref), lines))
        except Exception as error:  # it is asked for on behalf of somebody who has worse to tell
            log.info("no log of a container", extra={"container": docker_reading.id_of(ref)[:12], "why": str(error)[:200]})
            return []

    def forget(self, instance: str, ref: Ref) -> None:
        if docker_reading.id_of(ref):
            self._remove(self._engine_of(ref), docker_reading.id_of(ref))

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd

    def engine(self, host: str, tls_dir: str = "") -> Engine:
        """The one way of this process to an engine."""
        with self._lock:
            return self._engines.setdefault((host, tls_dir), Engine(host, tls_dir))

    # -- what there is -----------------------------------------------------------------------------

    def _places(self, pool: Pool) -> dict[tuple[str, str], list[int | None]]:
        """Engines the pool may order from with the offers there, and those its workers are on, or were lately, though it no longer names them."""
        placements: list[tuple[int | None, Mapping[str, Any]]] = [(None, {}), *PoolOffer.objects.filter(pool=pool).values_list("id", "placement")]
        found: dict[tuple[str, str], list[int | None]] = {}
        for offer, placement in placements:
            found.setdefault(_place({**pool.settings, **placement}), []).append(offer)
        lately = Q(state__in=Worker.LIVE) | Q(stopped_at__gt=self.clock() - LOOKED_FOR)
        used = Worker.objects.filter(lately, pool=pool, provider_ref__has_key="host").order_by()
        for host, tls_dir in used.values_list("provider_ref__host", "provider_ref__tls_dir").distinct():
            if host:
                found.setdefault(_place({"host": host, "tls_dir": tls_dir}), [])
        return found

    def _look(self, place: tuple[str, str], pool: Pool) -> list[Instance] | ProviderError:
        """What one engine runs of the pool, or why it cannot be known: it is silent, or refuses to say. In a thread of its own: it reads no row."""
        try:
            return self._containers(self.engine(*place), pool)
        except ProviderError as error:
            return error

    def _containers(self, engine: Engine, pool: Pool) -> list[Instance]:
        labels = [f"{container.INSTALLATION}={self.installation}", f"{container.POOL_NUMBER}={pool.pk}"]
        rows = engine.call(partial(docker_reading.listed, labels=labels, whole=(container.INSTANCE,)))
        rows.sort(key=lambda row: row.get("Created") or 0, reverse=True)
        self._finish(engine, [row for row in rows if row.get("State") == "created"])
        found, looked = [], 0
        for row in rows:
            details = None
            if row.get("State") in ("exited", "dead", "restarting") and looked < MOST_DETAILS:
                looked += 1
                with contextlib.suppress(Gone):
                    details = engine.call(partial(docker_reading.inspected, id_=str(row["Id"])))
            found.append(container.instance_of(row, details, host=engine.host, tls_dir=engine.tls_dir))
        return found

    def _finish(self, engine: Engine, rows: list[dict[str, Any]]) -> None:
        """Start containers whose launch was cut short after they were made; those that cannot be started go."""
        if not rows:
            return
        engine_s = docker_reading.seconds(engine.call(lambda api: api.info()["SystemTime"]))
        for row in [row for row in rows if engine_s - float(row.get("Created") or engine_s) > HALF_LAUNCHED_S][:MOST_FINISHED]:
            log.warning("half-launched container", extra={"container": str(row["Id"])[:12]})
            with contextlib.suppress(ProviderError):
                self._start(engine, str(row["Id"]))

    # -- how one is made ---------------------------------------------------------------------------

    def _options(self, pool: Pool, offer: PoolOffer | None) -> Options:
        placement = offer.placement if offer is not None else {}
        try:
            settled = checked("docker", {**pool.settings, **placement})
        except Invalid as error:
            raise Refused(f"The pool's settings cannot be used. {error.message}") from error
        options = docker_settings.options(settled, {})
        options = replace(options, host=options.host or str(settings.BUILD["DOCKER_HOST"]), url=options.url or str(settings.AGENT_URL).rstrip("/"))
        if options.network != "host" and docker_settings.loopback(urlsplit(options.url).hostname or ""):
            raise Refused(f"A container cannot reach the control plane at {options.url}. Set AGENT_URL, or the pool's url, to an address it can reach.")
        return options

    def _create(self, engine: Engine, worker: Worker, image: str, options: Options) -> str:
        """The container's id, made now or by an earlier launch of the same instance."""
        kind = worker.gpu or worker.pool.gpu
        gpus = options.gpus if options.gpus is not None else 0 if kind == "cpu" else 1
        name = container.name_of(self.installation, worker.instance)
        labels = {
            container.INSTALLATION: self.installation,
            container.POOL: worker.pool.slug,
            container.POOL_NUMBER: str(worker.pool.pk),
            container.INSTANCE: worker.instance,
            container.WORKER: worker.name,
            container.IMAGE: image,
            container.MARKET: worker.market,
            container.GPU: kind,
            container.ZONE: options.zone,
        }
        env = container.environment(
            options, url=options.url, token=tokens.pool_token(worker.pool), instance=worker.instance, name=worker.name, on_cpu=gpus == 0
        )
        with engine.giving_out if gpus and options.devices else contextlib.nullcontext():
            devices = self._free(engine, options, gpus) if gpus and options.devices else []
            if devices:
                labels[container.DEVICES] = ",".join(devices)
            try:
                made = engine.call(
                    lambda api: api.create_container(
                        image,
                        name=name,
                        hostname=worker.name[:60],
                        user=options.user,
                        environment=env,
                        labels=labels,
                        stop_timeout=options.stop_s,
                        host_config=container.host_config(api, options, devices=devices, gpus=gpus),
                    )["Id"],
                    within_s=CHANGE_S,
                )
                return str(made)
            except Taken:
                return self._mine(engine, name, worker.instance)

    def _mine(self, engine: Engine, name: str, instance: str) -> str:
        try:
            there = engine.call(lambda api: api.inspect_container(name))
        except Gone as error:  # it was being removed
            raise Unavailable(f"The container {name} goes away right now.") from error
        labels = (there.get("Config") or {}).get("Labels") or {}
        if labels.get(container.INSTALLATION) != self.installation or labels.get(container.INSTANCE) != instance:
            raise Refused(f"A container that is not ours has the name {name}. Remove it or give it another name.")
        return str(there["Id"])

    def _free(self, engine: Engine, options: Options, gpus: int) -> list[str]:
        """The least used of the devices named. Whoever put it there, a container that says what it uses counts. Raises NoCapacity."""
        rows = engine.call(partial(docker_reading.listed, labels=[container.DEVICES]))
        used = dict.fromkeys(options.devices, 0)
        for row in rows:
            if row.get("State") in ("created", "running", "paused", "restarting", "removing"):
                for device in str(row["Labels"].get(container.DEVICES) or "").split(","):
                    if device in used:
                        used[device] += 1
        free = sorted((d for d in options.devices if used[d] < options.per_device), key=lambda d: used[d])
        if len(free) < gpus:
            raise NoCapacity(f"{len(free)} of the {len(options.devices)} GPUs of {engine.host} are free, and a worker needs {gpus}.")
        return free[:gpus]

    def _start(self, engine: Engine, id_: str) -> None:
        """Start it if it was never started. One that cannot be started is removed: the engine would keep it."""
        if self._state(engine, id_) != "created":
            return
        try:
            engine.call(lambda api: api.start(id_), within_s=CHANGE_S)
        except (Gone, Taken) as error:  # what it needs is not there (a network, a volume), or it is being removed
            self._discard(engine, id_)
            raise Refused(f"The Docker engine cannot start it: {error}") from error
        except Unavailable:
            raise  # perhaps it started: it is found, and ended when nobody wants it any more
        except ProviderError:
            self._discard(engine, id_)
            raise

    def _state(self, engine: Engine, id_: str) -> str:
        try:
            return str(engine.call(lambda api: api.inspect_container(id_)["State"]["Status"]))
        except Gone:
            return ""

    def _discard(self, engine: Engine, id_: str) -> None:
        with contextlib.suppress(ProviderError):
            if self._state(engine, id_) == "created":
                self._remove(engine, id_)

    def _remove(self, engine: Engine, id_: str) -> None:
        with contextlib.suppress(Gone, Taken):  # gone, or on its way
            engine.call(lambda api: api.remove_container(id_, force=True, v=True), within_s=CHANGE_S)

    def _engine_of(self, ref: Ref) -> Engine:
        return self.engine(*_place(ref))


def _place(said: Mapping[str, Any]) -> tuple[str, str]:
    """Which engine settings or a reference mean."""
    return str(said.get("host") or settings.BUILD["DOCKER_HOST"]), str(said.get("tls_dir") or "")
