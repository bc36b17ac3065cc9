"""What the store is told at start, all from the environment: the CLI, the agent and tests read the same words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.agent.store.contents import PicklePolicy
from fleet.agent.store.failures import Misconfigured

GIB = 1024**3
MIB = 1024**2
CAP = 100 * GIB
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)

HELP = """model store (environment):
  COMFYPLANE_STORE_DIR           where models are kept, shared by the workers of the host; unset: no store
  COMFYPLANE_STORE_CAP           most bytes it may take, never exceeded; default what it was told last, at first 100GiB
  COMFYPLANE_STORE_KEEP_FREE     bytes of the disk it leaves free; default 2GiB
  COMFYPLANE_STORE_MAX_FILE      largest single file; default the cap
  COMFYPLANE_STORE_HOSTS         who may be asked, comma-separated: * (any public host by https), host, *.host,
                                 http://host:port (plain http and private addresses too), s3://bucket; default *
  COMFYPLANE_STORE_LOCAL_ROOTS   directories that file:// may read, separated by a colon; default none
  COMFYPLANE_STORE_MIRRORS       addresses tried first, as <mirror>/sha256/ab/<sha256>, comma-separated
  COMFYPLANE_STORE_SECRETS       JSON or TOML file of credentials by address (docs/models.md)
  COMFYPLANE_STORE_S3_ENDPOINT   S3 service of s3://; COMFYPLANE_STORE_S3_REGION its region
  COMFYPLANE_STORE_HF_ENDPOINT   hub behind hf://org/repo@revision/path; default https://huggingface.co
  COMFYPLANE_STORE_PICKLE        no (default), yes, or the SHA-256 of pickles that may be used, comma-separated
  COMFYPLANE_STORE_PROXY         http://host:port that all downloads go through
  COMFYPLANE_STORE_STREAMS       ranges fetched at once; default 4
  COMFYPLANE_STORE_PART          bytes of a range; default 16MiB
  COMFYPLANE_STORE_TRIES         tries of one range without a byte of progress; default 5
  COMFYPLANE_STORE_TIMEOUT_S     silence of a source that ends a try; default 30
  COMFYPLANE_STORE_ROOM_WAIT_S   wait for models in use to be let go; default 30
"""


@dataclass(frozen=True)
class StoreSettings:
    root: Path
    cap_bytes: int = 0  # 0: as the store was told last, else CAP
    keep_free_bytes: int = 2 * GIB
    max_file_bytes: int | None = None
    hosts: tuple[str, ...] = ("*",)
    local_roots: tuple[Path, ...] = ()
    mirrors: tuple[str, ...] = ()
    secrets_file: Path | None = field(default=None, repr=False)
    s3_endpoint: str = ""
    s3_region: str = ""
    hf_endpoint: str = "https://huggingface.co"
    pickles: PicklePolicy = field(default_factory=PicklePolicy)
    proxy: str = field(default="", repr=False)
    streams: int = 4
    part_bytes: int = 16 * MIB
    tries: int = 5
    timeout_s: float = 30.0
    room_wait_s: float = 30.0
    slow_bytes_per_s: int = 10_000
    slow_after_s: float = 60.0
    backoff_first_s: float = 0.5

    @property
    def largest_bytes(self) -> int:
        return min(self.max_file_bytes or self.cap_bytes, self.cap_bytes)


def from_env(env: Mapping[str, str] = os.environ, *, root: str = "") -> StoreSettings | None:
    """The settings, or None when no store directory is named. Raises Misconfigured."""
    said = {name.removeprefix("COMFYPLANE_STORE_").lower(): value.strip() for name, value in env.items() if name.startswith("COMFYPLANE_STORE_")}
    directory = root or said.get("dir", "")
    if not directory:
        return None
    base = StoreSettings(Path(directory).absolute())
    return StoreSettings(
        root=base.root,
        cap_bytes=size_of(said.get("cap"), base.cap_bytes, "CAP"),
        keep_free_bytes=size_of(said.get("keep_free"), base.keep_free_bytes, "KEEP_FREE"),
        max_file_bytes=size_of(said.get("max_file"), 0, "MAX_FILE") or None,
        hosts=_list(said.get("hosts")) or base.hosts,
        local_roots=tuple(Path(text).resolve() for text in said.get("local_roots", "").split(os.pathsep) if text.strip()),
        mirrors=tuple(text.rstrip("/") for text in _list(said.get("mirrors"))),
        secrets_file=Path(said["secrets"]) if said.get("secrets") else None,
        s3_endpoint=said.get("s3_endpoint", "").rstrip("/"),
        s3_region=said.get("s3_region", ""),
        hf_endpoint=said.get("hf_endpoint", "").rstrip("/") or base.hf_endpoint,
        pickles=_pickles(said.get("pickle", "")),
        proxy=said.get("proxy", ""),
        streams=int(_number(said.get("streams"), base.streams, "STREAMS", least=1, most=64)),
        part_bytes=max(size_of(said.get("part"), base.part_bytes, "PART"), 64 * 1024),
        tries=int(_number(said.get("tries"), base.tries, "TRIES", least=1, most=100)),
        timeout_s=_number(said.get("timeout_s"), base.timeout_s, "TIMEOUT_S", least=0.05, most=3600),
        room_wait_s=_number(said.get("room_wait_s"), base.room_wait_s, "ROOM_WAIT_S", least=0, most=86400),
        slow_bytes_per_s=size_of(said.get("slow"), base.slow_bytes_per_s, "SLOW"),
        slow_after_s=_number(said.get("slow_after_s"), base.slow_after_s, "SLOW_AFTER_S", least=0.1, most=3600),
        backoff_first_s=_number(said.get("backoff_s"), base.backoff_first_s, "BACKOFF_S", least=0, most=60),
    )


def size_of(text: str | None, default: int, name: str) -> int:
    """Bytes in words: 200GiB, 500MB, 123456."""
    if not text:
        return default
    found = _SIZE.fullmatch(text)
    unit = found[2].lower() if found else ""
    if found is None or unit not in _UNITS:
        raise Misconfigured(f"COMFYPLANE_STORE_{name} must be a size such as 200GiB, not {text!r}.")
    return int(float(found[1]) * _UNITS[unit])


def _number(text: str | None, default: float, name: str, *, least: float, most: float) -> float:
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Misconfigured(f"COMFYPLANE_STORE_{name} must be a number from {least:g} to {most:g}, not {text!r}.")
    return value


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\s]+", text or "") if part)


def _pickles(text: str) -> PicklePolicy:
    if text.lower() in ("", "no", "0", "false"):
        return PicklePolicy()
    if text.lower() in ("yes", "1", "true", "all"):
        return PicklePolicy(everything=True)
    hashes = frozenset(part.lower() for part in _list(text))
    if not all(re.fullmatch(r"[0-9a-f]{64}", one) for one in hashes):
        raise Misconfigured("COMFYPLANE_STORE_PICKLE must be no, yes, or SHA-256 hashes.")
    return PicklePolicy(hashes=hashes)
