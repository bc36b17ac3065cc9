"""What a worker's container is made from, and what a container says about itself. Pure but for the SDK's types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.providers.base import Instance, Ref
from fleet.providers.docker_settings import Options

INSTALLATION = "io.comfyplane.installation"
POOL = "io.comfyplane.pool"
POOL_NUMBER = "io.comfyplane.pool-number"
INSTANCE = "io.comfyplane.instance"
WORKER = "io.comfyplane.worker"
IMAGE = "io.comfyplane.worker-image"
MARKET = "io.comfyplane.market"
GPU = "io.comfyplane.gpu"
ZONE = "io.comfyplane.zone"
DEVICES = "io.comfyplane.devices"
DATA = "/data"
MODELS = "/opt/ComfyUI/models"
STORE = "/srv/models"
TOKEN = "/run/secrets/comfyplane-pool-token"  # noqa: S105 - where it is, not what it is
_EXITED = re.compile(r"Exited \((\d{1,3})\)")
_CODES = {
    1: "the agent failed",
    2: "the control plane refused it, or it was started with settings that make no sense",
    3: "it heard nothing of the control plane",
    4: "its ComfyUI crashed again and again",
    125: "it could not be started",
    126: "its program cannot be executed",
    127: "its program was not found",
    134: "it aborted",
    137: "it was killed",
    139: "it crashed (SIGSEGV)",
    143: "it was ended by SIGTERM",
}


def name_of(installation: str, instance: str) -> str:
    """The container's name: the engine allows it once, so a second launch finds the first."""
    return f"comfyplane-{installation[:8]}-{re.sub('[^A-Za-z0-9_.-]', '-', instance)}"


def environment(options: Options, *, url: str, token: str, instance: str, name: str, on_cpu: bool) -> dict[str, str]:
    """What the agent is told. With `token_file` the pool token is not among it."""
    told = {
        "COMFYPLANE_URL": url,
        "COMFYPLANE_INSTANCE": instance,
        "COMFYPLANE_WORKER_NAME": name,
        "PYTHONUNBUFFERED": "1",
        **({"COMFYPLANE_POOL_TOKEN_FILE": TOKEN} if options.token_file else {"COMFYPLANE_POOL_TOKEN": token}),
    }
    usual = {"COMFYPLANE_MIN_FREE_RAM_MIB": str(min(512, options.memory_mib // 8))}
    if on_cpu:
        usual["COMFYUI_ARGS"] = "--cpu"
    if options.scratch == "memory":
        usual["COMFYPLANE_MIN_FREE_DISK_MIB"] = str(min(1024, options.scratch_size_mib // 4))
    if options.store:
        usual["COMFYPLANE_STORE_DIR"] = STORE if options.store.startswith("/") else f"{MODELS}/store"
    return {**usual, **options.env, **told}


def host_config(api: Any, options: Options, *, devices: Sequence[str], gpus: int) -> dict[str, Any]:
    """How it is run: what the worker needs, and nothing more."""
    from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

    uid, _, gid = options.user.partition(":")
    mine = f"uid={uid},gid={gid or uid},mode=0700"
    tmpfs = {"/tmp": f"mode=1777,size={options.scratch_size_mib}m"}  # noqa: S108 - the container's
    mounts = []
    if options.scratch == "memory":
        tmpfs[DATA] = f"{mine},size={options.scratch_size_mib}m"
    else:
        mounts.append(Mount(DATA, None, type="volume"))
    if options.token_file:
        mounts.append(Mount(TOKEN, options.token_file, type="bind", read_only=True))
    if options.store.startswith("/"):
        mounts.append(Mount(STORE, options.store, type="bind"))
    elif options.store:
        # An empty volume takes over the owner of what it is mounted on, and in images of ours the user owns this directory.
        mounts.append(Mount(MODELS, options.store, type="volume"))
    request = DeviceRequest(device_ids=list(devices), capabilities=[["gpu"]]) if devices else DeviceRequest(count=gpus, capabilities=[["gpu"]])
    made: dict[str, Any] = api.create_host_config(
        read_only=True,
        tmpfs=tmpfs,
        mounts=mounts,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        init=True,
        pids_limit=options.pids,
        mem_limit=f"{options.memory_mib}m",
        memswap_limit=f"{options.memory_mib}m",
        nano_cpus=int(options.cpus * 1e9) if options.cpus else None,
        shm_size=f"{options.shm_mib}m",
        oom_score_adj=300,  # when the machine itself runs out of memory, a worker goes before what else runs there
        ulimits=[Ulimit(name="core", soft=0, hard=0)],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": options.restarts} if options.restarts else {"Name": "no"},
        network_mode=options.network,
        extra_hosts=dict(options.extra_hosts) or None,
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": f"{options.log_mib}m", "max-file": "3"}),
        device_requests=[request] if gpus else None,
        runtime=options.runtime or None,
    )
    return made


def instance_of(row: Mapping[str, Any], details: Mapping[str, Any] | None, *, host: str, tls_dir: str) -> Instance:
    """A container of ours from the engine's list, with what looking closer told about one that ended or starts again."""
    labels = row.get("Labels") or {}
    state, status = str(row.get("State") or ""), str(row.get("Status") or "")
    phase, failed, why = "running", False, ""
    if state in ("exited", "dead"):
        phase = "ended"
        failed, why = ending(status, details)
    elif state == "created":
        phase, why = "pending", "It was made and is not started yet."
    elif state == "restarting":
        phase, why = "pending", f"The engine starts it again: {ending(status, details)[1]}"
    elif state == "removing":
        phase = "stopping"
    elif state == "paused":
        why = "It is paused on its machine."
    elif "(unhealthy)" in status:
        why = "Its own health check fails."
    return Instance(
        name=str(labels.get(INSTANCE) or ""),
        ref=ref(str(row["Id"]), host, tls_dir),
        phase=phase,
        failed=failed,
        why=why,
        image=str(labels.get(IMAGE) or row.get("Image") or ""),
        market=str(labels.get(MARKET) or ""),
        gpu=str(labels.get(GPU) or ""),
        zone=str(labels.get(ZONE) or ""),
    )


def ref(container: str, host: str, tls_dir: str) -> Ref:
    """How to find a container again."""
    return {"container": container, "host": host, **({"tls_dir": tls_dir} if tls_dir else {})}


def ending(status: str, details: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Whether a container that ended did so with an error, and how it ended, in a sentence."""
    state = (details or {}).get("State") or {}
    found = _EXITED.search(status)
    code = state.get("ExitCode") if isinstance(state.get("ExitCode"), int) else int(found.group(1)) if found else None
    limit = (((details or {}).get("HostConfig") or {}).get("Memory") or 0) // 1024**2
    error = "".join(c if c.isprintable() else " " for c in str(state.get("Error") or ""))[:200].strip()
    if code == 0:
        return False, "It left by itself."
    if state.get("OOMKilled"):
        what = f"it needed more than its {limit:,} MiB of memory and was killed" if limit else "it needed more memory than it may have and was killed"
    elif code is None:
        what = "it ended, and the engine does not know how"
    else:
        what = _CODES.get(code, "it failed") + f" (exit code {code})"
    again = int((details or {}).get("RestartCount") or 0)
    tries = f", after the engine had started it again {'once' if again == 1 else f'{again} times'}" if again else ""
    return True, f"{what[0].upper()}{what[1:]}{tries}{f': {error}' if error else ''}."
