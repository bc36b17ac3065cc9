"""What the agent is told at start: flags first, then the environment, then a default."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.agent.store import settings as store_settings
from fleet.agent.store.failures import Misconfigured
from fleet.agent.store.settings import StoreSettings

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class EngineChoice:
    """Which ComfyUI to drive: an existing server, a source tree, or the embedded engine."""

    url: str | None = None
    directory: Path | None = None
    python: str = sys.executable
    args: tuple[str, ...] = ()
    start_timeout_s: float = 300.0
    models_dir: Path | None = None  # where the store's models are put for it

    @property
    def kind(self) -> str:
        if self.url:
            return "external"
        return "comfyui" if self.directory else "embedded"


@dataclass(frozen=True)
class Patience:
    """How long the agent waits for ComfyUI before it draws a conclusion."""

    poll_s: float = 2.0  # history beside the websocket
    quiet_socket_s: float = 15.0  # a silent socket may have been forgotten by the server
    interrupt_grace_s: float = 20.0  # interrupts act between nodes only
    gone_s: float = 10.0  # an engine we did not start stays unreachable this long: it crashed
    restart_s: float = 0.5  # before the first restart of a crashed engine; doubles up to 30 s


@dataclass(frozen=True)
class Settings:
    control_url: str = ""
    pool_token: str = field(default="", repr=False)
    instance: str = ""
    name: str = ""
    work_dir: Path | None = None
    engine: EngineChoice = field(default_factory=EngineChoice)
    patience: Patience = field(default_factory=Patience)
    min_free_disk_bytes: int = GIB
    min_free_ram_bytes: int = 512 * MIB
    max_input_bytes: int = 512 * MIB
    health_file: Path | None = None
    preempt_file: Path | None = None
    store: StoreSettings | None = None
    log_level: str = "info"


def parser() -> argparse.ArgumentParser:
    """The command line, with the environment variable of each flag in its help."""
    p = argparse.ArgumentParser(
        prog="python -m fleet.agent",
        description="Drive one ComfyUI for the Comfyplane control plane.",
        epilog="Without --comfyui-url and --comfyui-dir the embedded engine is started as a child process.\n\n" + store_settings.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def flag(name: str, env: str, text: str) -> None:
        p.add_argument(name, help=f"{text} (env {env})")

    flag("--url", "COMFYPLANE_URL", "control plane, e.g. https://plane.example")
    flag("--pool-token", "COMFYPLANE_POOL_TOKEN", "token of the pool; the environment hides it from process lists")
    flag("--pool-token-file", "COMFYPLANE_POOL_TOKEN_FILE", "file with the token, such as a mounted secret; hides it from the environment too")
    flag("--instance", "COMFYPLANE_INSTANCE", "opaque launch id given by the provider")
    flag("--name", "COMFYPLANE_WORKER_NAME", "name shown to people")
    flag("--comfyui-url", "COMFYUI_URL", "drive this running ComfyUI")
    flag("--comfyui-dir", "COMFYUI_DIR", "start main.py from this ComfyUI source tree")
    flag("--comfyui-args", "COMFYUI_ARGS", "extra arguments for main.py, quoted as in a shell")
    flag("--comfyui-python", "COMFYUI_PYTHON", "interpreter for main.py")
    flag("--start-timeout-s", "COMFYPLANE_START_TIMEOUT_S", "longest start of the engine, default 300")
    flag("--work-dir", "COMFYPLANE_WORK_DIR", "where the engine's files go, default a temporary directory")
    flag("--min-free-disk-mib", "COMFYPLANE_MIN_FREE_DISK_MIB", "below this no job is claimed, default 1024")
    flag("--min-free-ram-mib", "COMFYPLANE_MIN_FREE_RAM_MIB", "below this no job is claimed, default 512")
    flag("--max-input-mib", "COMFYPLANE_MAX_INPUT_MIB", "largest input file, default 512")
    flag("--health-file", "COMFYPLANE_HEALTH_FILE", "where to write whether this worker is well, for python -m fleet.agent.health")
    flag("--preempt-file", "COMFYPLANE_PREEMPT_FILE", "file that appears when this machine is about to be taken away; SIGUSR1 says the same")
    flag("--store-dir", "COMFYPLANE_STORE_DIR", "where models are kept, shared by the workers of the host; default: no store")
    flag("--models-dir", "COMFYPLANE_MODELS_DIR", "models folder of the engine that the store's files are linked into, default one of its own")
    flag("--poll-s", "COMFYPLANE_POLL_S", "history poll beside the websocket, default 2")
    flag("--interrupt-grace-s", "COMFYPLANE_INTERRUPT_GRACE_S", "wait for an interrupt to act, default 20")
    flag("--restart-s", "COMFYPLANE_RESTART_S", "wait before the first restart of a crashed engine, default 0.5")
    flag("--log-level", "COMFYPLANE_LOG_LEVEL", "debug, info, warning or error, default info")
    p.add_argument("--serverless", metavar="INPUT.json|-", help="run one request from a file or stdin, print its output")
    return p


def from_args(argv: Sequence[str], env: Mapping[str, str] = os.environ) -> tuple[Settings, str | None]:
    """Settings, and the serverless input if that mode was asked for. Exits with usage on nonsense."""
    p = parser()
    args = p.parse_args(argv)

    def value(flag: str, variable: str, default: str = "") -> str:
        given = getattr(args, flag)
        return given if given is not None else env.get(variable, default)

    def number(flag: str, variable: str, default: float) -> float:
        text = value(flag, variable)
        try:
            return float(text) if text else default
        except ValueError:
            p.error(f"{variable} must be a number, not {text!r}")

    directory = value("comfyui_dir", "COMFYUI_DIR")
    work_dir = value("work_dir", "COMFYPLANE_WORK_DIR")
    health_file = value("health_file", "COMFYPLANE_HEALTH_FILE")
    preempt_file = value("preempt_file", "COMFYPLANE_PREEMPT_FILE")
    url = value("url", "COMFYPLANE_URL").rstrip("/")
    token = value("pool_token", "COMFYPLANE_POOL_TOKEN")
    token_file = value("pool_token_file", "COMFYPLANE_POOL_TOKEN_FILE")
    if token_file and not token and not args.serverless:
        try:
            token = Path(token_file).read_text("utf-8")[:1000].strip()
        except (OSError, ValueError) as error:
            p.error(f"COMFYPLANE_POOL_TOKEN_FILE cannot be read: {error}")
    if not args.serverless and not (url and token):
        p.error("COMFYPLANE_URL and COMFYPLANE_POOL_TOKEN (or COMFYPLANE_POOL_TOKEN_FILE) are needed")
    try:
        store = store_settings.from_env(env, root=args.store_dir or "")
    except Misconfigured as error:
        p.error(f"{error.message} {error.suggestion}")
    models_dir = value("models_dir", "COMFYPLANE_MODELS_DIR")
    instance = value("instance", "COMFYPLANE_INSTANCE") or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    settings = Settings(
        control_url=url,
        pool_token=token,
        instance=instance,
        name=value("name", "COMFYPLANE_WORKER_NAME") or f"w-{secrets.token_hex(2)}",
        work_dir=Path(work_dir).resolve() if work_dir else None,
        engine=EngineChoice(
            url=value("comfyui_url", "COMFYUI_URL").rstrip("/") or None,
            directory=Path(directory).resolve() if directory else None,
            python=value("comfyui_python", "COMFYUI_PYTHON") or sys.executable,
            args=tuple(shlex.split(value("comfyui_args", "COMFYUI_ARGS"))),
            start_timeout_s=number("start_timeout_s", "COMFYPLANE_START_TIMEOUT_S", 300.0),
            models_dir=Path(models_dir).absolute() if models_dir else None,
        ),
        patience=Patience(
            poll_s=number("poll_s", "COMFYPLANE_POLL_S", 2.0),
            interrupt_grace_s=number("interrupt_grace_s", "COMFYPLANE_INTERRUPT_GRACE_S", 20.0),
            restart_s=number("restart_s", "COMFYPLANE_RESTART_S", 0.5),
        ),
        min_free_disk_bytes=int(number("min_free_disk_mib", "COMFYPLANE_MIN_FREE_DISK_MIB", 1024) * MIB),
        min_free_ram_bytes=int(number("min_free_ram_mib", "COMFYPLANE_MIN_FREE_RAM_MIB", 512) * MIB),
        max_input_bytes=int(number("max_input_mib", "COMFYPLANE_MAX_INPUT_MIB", 512) * MIB),
        health_file=Path(health_file) if health_file else None,
        preempt_file=Path(preempt_file) if preempt_file else None,
        store=store,
        log_level=value("log_level", "COMFYPLANE_LOG_LEVEL", "info"),
    )
    return settings, args.serverless
