"""What a pool of containers may be told, and what it is when it is not told. Pure; docs/docker.md says the same for people."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from fleet.providers.settings import Setting

UID = 10001
"""Who images of ours run as."""
RESERVED = ("COMFYPLANE_URL", "COMFYPLANE_POOL_TOKEN", "COMFYPLANE_POOL_TOKEN_FILE", "COMFYPLANE_INSTANCE", "COMFYPLANE_WORKER_NAME")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_./-]{0,99}")
_USER = re.compile(r"[1-9][0-9]{0,8}(:[1-9][0-9]{0,8})?")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of one kind of machine, complete."""

    host: str = ""
    tls_dir: str = ""
    url: str = ""
    network: str = "bridge"
    extra_hosts: Mapping[str, str] = field(default_factory=lambda: {"host.docker.internal": "host-gateway"})
    memory_mib: int = 16384
    cpus: float | None = None
    pids: int = 1024
    shm_mib: int = 256
    scratch: str = "memory"
    scratch_mib: int | None = None
    user: str = f"{UID}:{UID}"
    gpus: int | None = None
    devices: tuple[str, ...] = ()
    per_device: int = 1
    runtime: str = ""
    restarts: int = 2
    stop_s: int = 120
    log_mib: int = 10
    pull: str = "missing"
    token_file: str = ""
    store: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""

    @property
    def scratch_size_mib(self) -> int:
        """Size of the directory a worker may write to, when it is in memory: half of its memory unless told."""
        return self.scratch_mib or max(64, self.memory_mib // 2)


def options(settings: Mapping[str, Any], placement: Mapping[str, Any]) -> Options:
    """A pool's checked settings with those of an offer over them; names that are no settings are left out."""
    known = {f.name for f in fields(Options)}
    said = {name: value for name, value in {**settings, **placement}.items() if name in known and value is not None}
    if "devices" in said:
        said["devices"] = tuple(said["devices"])
    return Options(**said)


def consistent(found: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with settings that are each right by themselves: {setting: why}."""
    given = options(found, {})
    wrong: dict[str, str] = {}
    address = urlsplit(given.host)
    if address.scheme == "tcp" and not given.tls_dir and not loopback(address.hostname or ""):
        wrong["host"] = "must be reached by TLS (tls_dir): whoever reaches an engine without it is root on its machine"
    if given.tls_dir and address.scheme != "tcp":
        wrong["tls_dir"] = "goes with a host of the form tcp://name:port"
    if given.devices and given.gpus is not None and given.gpus > len(given.devices):
        wrong["gpus"] = f"is more than the {len(given.devices)} devices named"
    if given.devices and given.gpus == 0:
        wrong["devices"] = "are named, but gpus is 0"
    if given.scratch == "memory" and given.scratch_mib and given.scratch_mib > given.memory_mib:
        wrong["scratch_mib"] = "is more than memory_mib, which it is part of"
    return wrong


def loopback(host: str) -> bool:
    """Whether a name or address means the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least:,} to {most:,}")
        return value

    return check


def _number(least: float, most: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:  # NaN compares false
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return float(value)

    return check


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return str(value)

    return check


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(words)
        return value

    return check


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 400 or "\0" in value or ":" in value or ".." in value.split("/"):
        raise ValueError("must be an absolute path without .. and colons")
    return value


def _host(value: Any) -> str:
    if isinstance(value, str) and value.startswith("unix:///") and len(value) <= 115 and value.isprintable():
        return value
    if isinstance(value, str) and value.startswith("tcp://"):
        try:
            address = urlsplit(value)
            if address.hostname and address.port and not address.path and "@" not in value:
                return value
        except ValueError:
            pass
    raise ValueError("must be unix:///path/of/socket or tcp://name:port")


def _url(value: Any) -> str:
    try:
        address = urlsplit(value if isinstance(value, str) else "")
        good = address.scheme in ("http", "https") and bool(address.hostname) and "@" not in address.netloc and address.port != 0
    except ValueError:
        good = False
    if not good or len(value) > 300 or not value.isprintable():
        raise ValueError("must be http://… or https://…")
    return str(value).rstrip("/")


def _network(value: Any) -> str:
    if value == "none":
        raise ValueError("must not be none: a worker that cannot reach the control plane gets no jobs")
    if isinstance(value, str) and value.startswith("container:"):
        raise ValueError("must name a network, not a container")
    return _matching(_NAME, "must be the name of a network, bridge or host")(value)


def _extra_hosts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > 50:
        raise ValueError("must be an object of names and addresses")
    for name, address in value.items():
        if not isinstance(name, str) or not _HOST_NAME.fullmatch(name):
            raise ValueError(f"has {str(name)[:60]!r}, which is no host name")
        if address != "host-gateway":
            try:
                ipaddress.ip_address(address if isinstance(address, str) else "")
            except ValueError as error:
                raise ValueError(f"must give an IP address or host-gateway for {name}") from error
    return {str(name): str(address) for name, address in value.items()}


def _devices(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 64 or not all(isinstance(d, str) and _DEVICE.fullmatch(d) for d in value):
        raise ValueError('must be a list of device numbers or ids as text, such as ["0", "1"]')
    if len(set(value)) != len(value):
        raise ValueError("must name each device once")
    return list(value)


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > 100:
        raise ValueError("must be an object of at most 100 names and texts")
    for name, text in value.items():
        if not isinstance(name, str) or not _ENV.fullmatch(name):
            raise ValueError(f"has {str(name)[:60]!r}, which is no name of an environment variable")
        if name in RESERVED:
            raise ValueError(f"must not set {name}, which is given to every worker")
        if not isinstance(text, str) or len(text) > 4000 or "\0" in text:
            raise ValueError(f"must give a text of at most 4,000 characters for {name}")
    return dict(value)


def _store(value: Any) -> str:
    return _path(value) if isinstance(value, str) and value.startswith("/") else _matching(_NAME, "must be the name of a volume or an absolute path")(value)


SETTINGS: dict[str, Setting] = {
    "host": Setting("Docker engine, as unix:///path or tcp://name:port; default the one that builds images (BUILD_DOCKER_HOST)", _host),
    "tls_dir": Setting("directory of this control plane with ca.pem, cert.pem and key.pem for a tcp:// host", _path),
    "url": Setting("control plane as the containers reach it; default AGENT_URL", _url),
    "network": Setting("network of the containers: bridge, host, or the name of one you made", _network, "bridge"),
    "extra_hosts": Setting("host names the containers know, with an address or host-gateway", _extra_hosts, {"host.docker.internal": "host-gateway"}),
    "memory_mib": Setting("memory limit; a container that needs more is killed, and swap is not used", _whole(64, 4_194_304), 16384),
    "cpus": Setting("processors it may use, such as 2.5; default all", _number(0.01, 4096)),
    "pids": Setting("processes and threads it may have", _whole(16, 1_000_000), 1024),
    "shm_mib": Setting("size of /dev/shm", _whole(1, 1_048_576), 256),
    "scratch": Setting("where its working files are: memory (counted as its memory) or disk (a volume that goes with it)", _one_of("memory", "disk"), "memory"),
    "scratch_mib": Setting("size of the working directory when it is in memory; default half of memory_mib", _whole(16, 4_194_304)),
    "user": Setting("user and group it runs as, by number; not root", _matching(_USER, "must be numbers as in 10001:10001, and not root"), f"{UID}:{UID}"),
    "gpus": Setting("GPUs of each worker; default 1, and 0 in a pool whose GPU is cpu", _whole(0, 64)),
    "devices": Setting("GPUs of the machine that may be used, by number or id; each worker gets free ones", _devices, []),
    "per_device": Setting("workers that may share one of the devices named", _whole(1, 64), 1),
    "runtime": Setting("container runtime, such as nvidia or runsc; default the engine's own", _matching(_NAME, "must be the name of a runtime")),
    "restarts": Setting("times the engine starts a worker again that failed; one that left is never started again", _whole(0, 20), 2),
    "stop_s": Setting("seconds the engine gives a worker to finish its job when it stops it by itself, as when it shuts down", _whole(1, 86_400), 120),
    "log_mib": Setting("size of a log file; three are kept", _whole(1, 10_000), 10),
    "pull": Setting("missing (fetch an image the engine does not have) or never", _one_of("missing", "never"), "missing"),
    "token_file": Setting("file on the engine's machine with the pool token, instead of giving it in the environment", _path),
    "store": Setting("store of models shared by the workers of a machine: name of a volume, or a directory that the user may write", _store),
    "env": Setting("more environment of the workers, such as COMFYUI_ARGS; seen by whoever may use the engine", _env, {}),
    "zone": Setting("what to call the place, shown with its workers", _matching(_NAME, "must be a short name")),
}
