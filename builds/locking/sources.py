"""Where things are to be had, and what the image shall be.

`Sources` is where this installation fetches from (mirrors, indexes, caches): nothing of it enters a lock, so the
same lock is made in a closed network and in an open one. `Target` is what the image shall be; all of it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from django.conf import settings

from builds.locking.requirements import FORGES
from builds.locking.running import redacted
from controlplane.kernel import outbound
from controlplane.kernel.errors import Invalid, Unavailable, WorkflowError

COMFYUI = "https://github.com/Comfy-Org/ComfyUI"
_FIX = "Give an https:// address of a public repository, or set up a mirror (BUILD_PACK_MIRROR)."


@dataclass(frozen=True)
class Sources:
    """Addresses to fetch from; empty ones mean the public ones."""

    cache: Path
    comfyui: str = ""
    pack_mirror: str = ""
    registry: str = ""
    index: str = ""
    find_links: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("https",)
    url_hosts: tuple[str, ...] = ()
    source_builds: bool = False
    offline: bool = False
    timeout_s: float = 300.0

    @classmethod
    def of_settings(cls) -> Sources:
        """As the environment says (settings.BUILD)."""
        build = _build_settings()
        return cls(
            cache=Path(build.get("CACHE") or settings.DATA_DIR / "sources"),
            comfyui=build.get("COMFYUI_SOURCE", ""),
            pack_mirror=build.get("PACK_MIRROR", ""),
            registry=build.get("PACK_REGISTRY", ""),
            index=build.get("PACKAGE_INDEX", ""),
            find_links=tuple(build.get("FIND_LINKS", ())),
            protocols=tuple(build.get("GIT_PROTOCOLS", ("https",))),
            url_hosts=tuple(build.get("REQUIREMENT_HOSTS", ())),
            source_builds=bool(build.get("SOURCE_BUILDS", False)),
        )


@dataclass(frozen=True)
class Target:
    """What the image shall be, where the workflow does not say it."""

    repository: str = COMFYUI
    ref: str = ""
    python: str = "3.11"
    arch: str = "amd64"
    base_image: str = ""
    constraints: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    torch_backend: str = ""
    agent: tuple[str, ...] = field(default=())

    @classmethod
    def of_settings(cls) -> Target:
        """As the environment says (settings.BUILD)."""
        build = _build_settings()
        return cls(
            repository=build.get("COMFYUI_REPOSITORY") or COMFYUI,
            ref=build.get("COMFYUI_REF", ""),
            python=build.get("PYTHON_VERSION") or "3.11",
            arch=build.get("ARCH") or "amd64",
            base_image=build.get("BASE_IMAGE", ""),
            constraints=tuple(build.get("CONSTRAINTS", ())),
            left_out=tuple(build.get("LEAVE_OUT", ())),
            torch_backend=build.get("TORCH_BACKEND", ""),
            agent=tuple(build.get("AGENT_REQUIREMENTS", ())),
        )


def _build_settings() -> dict[str, Any]:
    found: dict[str, Any] = getattr(settings, "BUILD", {})
    return found


def canonical(repository: str) -> str:
    """One spelling of a repository's address: scheme and host in lower case, https for git@, no .git, no slash at the end."""
    text = repository.strip()
    if match := re.fullmatch(r"git@([\w.-]+):(.+)", text):
        text = f"https://{match[1]}/{match[2]}"
    scheme, found, rest = text.partition("://")
    if not found:
        return text.rstrip("/").removesuffix(".git")
    host, slash, path = rest.partition("/")
    path = path.split("?", 1)[0].split("#", 1)[0].rstrip("/").removesuffix(".git")
    scheme = {"git": "https", "http": "https", "git+https": "https"}.get(scheme.lower(), scheme.lower())
    return f"{scheme}://{host.lower()}{slash}{path}".rstrip("/")


def comfyui_address(sources: Sources, repository: str) -> str:
    """Where ComfyUI is read from: the mirror of the settings, or the repository itself."""
    return sources.comfyui or pack_address(sources, repository)


def pack_address(sources: Sources, repository: str) -> str:
    """Where a pack is read from: the first mirror that is there, else its repository once `check` let it pass.

    A mirror is a directory with HOST/OWNER/NAME(.git), OWNER/NAME(.git) or NAME(.git), or an address that
    HOST/OWNER/NAME.git is put behind.
    """
    repository = canonical(repository)
    if sources.pack_mirror:
        parts = [part for part in re.split(r"[/\\]+", repository.partition("://")[2]) if part not in ("", ".", "..")]
        if "://" in sources.pack_mirror and not sources.pack_mirror.startswith("file://"):
            return f"{sources.pack_mirror.rstrip('/')}/{'/'.join(parts)}.git"
        root = Path(sources.pack_mirror.removeprefix("file://"))
        # Never the host's own directory: an address without a path names no repository.
        for start in range(min(3, len(parts)) if len(parts) > 1 else 0):
            for suffix in (".git", ""):
                mirror = root.joinpath(*parts[start:-1], parts[-1] + suffix)
                if (mirror / "HEAD").is_file() or (mirror / ".git").exists():
                    return str(mirror)
    check(repository, sources)
    return repository


def protocols(sources: Sources) -> tuple[str, ...]:
    """What git may speak: what the settings allow for packs, and what their own mirrors need."""
    own = (one.partition("://")[0] for one in (sources.pack_mirror, sources.comfyui) if "://" in one)
    return tuple(dict.fromkeys((*sources.protocols, *own)))


def check(address: str, sources: Sources) -> None:
    """Refuse (Invalid `repository_refused`) an address that a stranger could use against us or the network around us."""
    if not address or len(address) > 300 or re.search(r"[\x00-\x20\x7f-\x9f\\<>\"'`|^{}]", address) or address.startswith("-"):
        raise refused(address, "it is empty, too long, or holds spaces or odd characters")
    parts = urlsplit(address)
    if parts.scheme not in sources.protocols or parts.scheme not in ("https", "http", "ssh"):
        raise refused(address, f"only {', '.join(sources.protocols)} is allowed")
    if parts.username or parts.password:
        raise refused(address, "it carries a user name or password")
    try:
        host, port = parts.hostname or "", parts.port or {"http": 80, "ssh": 22}.get(parts.scheme, 443)
    except ValueError:
        raise refused(address, "its port is not a number") from None
    if not host or host.startswith("-") or len(parts.path.strip("/")) == 0:
        raise refused(address, "it names no repository")
    try:
        outbound.addresses(host, port)
    except WorkflowError as error:
        raise refused(address, "its host is private, reserved or not valid") from error
    except outbound.Failed:
        return  # a name that does not resolve is for git to report as unreachable


def pinned(address: str, sources: Sources) -> str:
    """HOST:PORT:ADDRESSES for git (http.curloptResolve): a stranger's name may not lead elsewhere between the check and the connection.

    "" for what needs none: our own mirrors, other protocols, and where a proxy looks names up. Raises Invalid
    `repository_refused`, Unavailable `repository_unreachable`.
    """
    parts = urlsplit(address)
    own = tuple(one for one in (sources.pack_mirror, sources.comfyui) if one)
    if parts.scheme not in ("http", "https") or not parts.hostname or address.startswith(own) or getproxies():
        return ""
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        found = outbound.addresses(parts.hostname, port)
    except WorkflowError as error:
        raise refused(address, "its host is private, reserved or not valid") from error
    except outbound.Failed as error:
        fix = "Check the address, or name a mirror: BUILD_COMFYUI_SOURCE for ComfyUI, BUILD_PACK_MIRROR for packs (docs/builds.md)."
        raise Unavailable("repository_unreachable", f"{address[:200]} cannot be reached: its name does not resolve.", fix) from error
    return f"{parts.hostname}:{port}:{','.join(f'[{one}]' if ':' in one else one for one in found)}"


def follows_redirects(address: str) -> bool:
    """Whether git may follow a redirect from there: only at the big forges, whose redirects stay with them."""
    return (urlsplit(address).hostname or "") in FORGES


def refused(address: str, why: str) -> Invalid:
    address = redacted(address)
    return Invalid("repository_refused", f"{address[:120]!r} cannot be used as a repository: {why}.", _FIX, details={"repository": address[:300]})
