"""The Dockerfile of a lock, as text for people to read and BuildKit to run. Pure.

Layers stand in the order in which they change: OS, Python, torch, ComfyUI, packs, agent, workflow. Python packages are
installed in stages of their own and copied, so that pip, compilers and caches stay out and a change of one set leaves
the others alone. No `# syntax=` line (it would fetch a frontend) and no heredocs: the builders of closed networks and
of older engines read it as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builds.images import requirements
from controlplane.kernel.errors import Invalid

UID = 10001
COMFYUI = "/opt/ComfyUI"
VENV = "/opt/venv"
AGENT = "/opt/comfyplane"
DATA = "/data"
FINAL_STAGE = "image"
# Stages whose layers are in the image, in their order.
CHAIN = ("os", "runtime", FINAL_STAGE)
_REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]*(@sha256:[0-9a-f]{64})?")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9.+-]*(=[A-Za-z0-9.+:~-]+)?")
_PYTHON = re.compile(r"3\.\d{1,2}")


@dataclass(frozen=True)
class Settings:
    """What is no part of the lock. `base` is the image to start from, with its digest where it has one."""

    base: str
    os_packages: tuple[str, ...] = ()
    build_packages: tuple[str, ...] = ()
    pack_install_s: int = 600
    has_ca: bool = False
    has_pip_conf: bool = False
    base_name: str = ""
    base_digest: str = ""
    agent_version: str = ""
    source: str = "https://github.com/comfyplane/comfyplane"


def render(document: Mapping[str, Any], settings: Settings, *, lock_id: str) -> str:
    """The Dockerfile. Raises Invalid where a name in the lock or the settings would not stay a name."""
    if not _REFERENCE.fullmatch(settings.base):
        raise Invalid("base_image_malformed", f"{settings.base[:200]!r} names no image.", "Set BUILD_BASE_IMAGE to name:tag or name@sha256:….")
    for package in (*settings.os_packages, *settings.build_packages):
        if not _DEBIAN.fullmatch(package):
            raise Invalid("package_malformed", f"{package[:80]!r} names no Debian package.", "Correct BUILD_OS_PACKAGES or BUILD_TOOLS.")
    python = str(document["python"]["version"])
    if not _PYTHON.fullmatch(python):
        raise Invalid("lock_malformed", f"The lock asks for Python {python[:20]!r}.", "Make the lock again.")
    files = requirements.files(document["python_packages"])
    packs = list(document["packs"])
    folders = [folder(pack) for pack in packs]
    if len(set(folders)) != len(folders):
        raise Invalid("lock_malformed", "Two packs of the lock want the same folder under custom_nodes.", "Make the lock again.")
    installing = [name for pack, name in zip(packs, folders, strict=True) if pack.get("install_script")]
    lines = [
        f"# Image of lock {lock_id[:12]}. Written from the lock: change the lock, not this file.",
        *_os(settings),
        *_tools(settings, python, git=any(name.endswith("-git.txt") for name in files)),
        *(line for layer in requirements.LAYERS for line in _install(layer, files, settings)),
        *_sources(),
        *_runtime(files, folders, installing),
        *(line for index, name in enumerate(installing, start=1) for line in _pack_install(index, name, python, settings)),
        *_image(document, settings, installing, lock_id),
    ]
    return "\n".join(lines) + "\n"


def folder(pack: Mapping[str, Any]) -> str:
    """The pack's directory under custom_nodes. Raises Invalid where the lock's word for it is no plain name."""
    name = str(pack.get("folder") or str(pack.get("registry_id") or pack.get("key") or "").rstrip("/").rpartition("/")[2])
    name = name.removeprefix("cnr:").removesuffix(".git")
    if not _FOLDER.fullmatch(name):
        raise Invalid("lock_malformed", f"The pack {str(pack.get('key'))[:120]!r} has no usable folder name.", "Make the lock again.")
    return name


def _os(settings: Settings) -> list[str]:
    return [
        "",
        "# -- OS ----------------------------------------------------------------------------------------",
        f"FROM {settings.base} AS os",
        *_apt(settings.os_packages),
        f"RUN groupadd --gid {UID} comfy && useradd --uid {UID} --gid {UID} --home-dir {DATA} --no-create-home --shell /usr/sbin/nologin comfy \\",
        f"    && install --directory --owner={UID} --group={UID} {DATA}",
    ]


def _apt(packages: Sequence[str]) -> list[str]:
    if not packages:
        return []
    return [
        "# hadolint ignore=DL3008",
        "RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \\",
        f"    apt-get update -qq && apt-get install -y -qq --no-install-recommends {' '.join(sorted(packages))}",
    ]


def _tools(settings: Settings, python: str, *, git: bool) -> list[str]:
    wanted = set(settings.build_packages) | ({"git"} if git else set())
    major, _, minor = python.partition(".")
    return [
        "",
        "# -- Python: pip stays in this stage, the image gets an environment without it ------------------",
        "FROM os AS tools",
        *_apt(sorted(wanted)),
        *(["ENV SSL_CERT_FILE=/run/secrets/ca.pem PIP_CERT=/run/secrets/ca.pem GIT_SSL_CAINFO=/run/secrets/ca.pem"] if settings.has_ca else []),
        f"RUN python3 -c 'import sys; sys.exit(sys.version_info[:2] != ({major}, {minor}) and \"the lock wants Python {python}\")' \\",
        f"    && python3 -m venv /opt/pip && python3 -m venv --without-pip {VENV}",
    ]


def _install(layer: str, files: Mapping[str, str], settings: Settings) -> list[str]:
    named = [name for name in (f"{layer}.txt", f"{layer}-git.txt") if name in files]
    if not named:
        return []
    secrets = ""
    if settings.has_ca:
        secrets += " --mount=type=secret,id=ca,target=/run/secrets/ca.pem"
    if settings.has_pip_conf:
        secrets += " --mount=type=secret,id=pipconf,target=/etc/pip.conf"
    lines = ["", f"# -- Python packages: {layer} ".ljust(98, "-"), f"FROM tools AS {layer}-packages"]
    for name in named:
        hashes = "" if name.endswith("-git.txt") else " --require-hashes"
        lines += [
            f"RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements/{name},target=/requirements.txt{secrets} \\",
            f"    /opt/pip/bin/python -m pip --python {VENV}/bin/python --disable-pip-version-check install --no-input --no-deps{hashes} \\",
            "    --root-user-action=ignore --progress-bar=off -r /requirements.txt",
        ]
    return lines


def _sources() -> list[str]:
    # Compiled by content, not by time: a read-only root could not keep what is compiled at the start.
    compiled = "-m compileall -q --invalidation-mode unchecked-hash"
    return [
        "",
        "# -- sources of ComfyUI and of the agent, compiled: the root of a worker is read-only -----------",
        "FROM os AS comfyui",
        f"COPY comfyui/ {COMFYUI}/",
        f"RUN python3 {compiled} {COMFYUI}",
        "FROM os AS agent",
        f"COPY agent/ {AGENT}/",
        f"RUN python3 {compiled} {AGENT}",
    ]


def _runtime(files: Mapping[str, str], folders: Sequence[str], installing: Sequence[str]) -> list[str]:
    present = [layer for layer in requirements.LAYERS if f"{layer}.txt" in files or f"{layer}-git.txt" in files]
    lines = [
        "",
        "# -- the image, without what still has to be installed ------------------------------------------",
        "FROM os AS runtime",
        f"COPY --from=tools {VENV} {VENV}",
        *(f"COPY --from={layer}-packages {VENV} {VENV}" for layer in present if layer != "packs"),
        f"COPY --from=comfyui {COMFYUI} {COMFYUI}",
        # A volume mounted there takes this owner over, so that the agent may put models into it.
        f"RUN mkdir -p {COMFYUI}/models && chown -R {UID}:{UID} {COMFYUI}/models",
        *([f"COPY --from=packs-packages {VENV} {VENV}"] if "packs" in present else []),
    ]
    return lines + [f"COPY packs/{name}/ {COMFYUI}/custom_nodes/{name}/" for name in folders if name not in installing]


def _pack_install(index: int, name: str, python: str, settings: Settings) -> list[str]:
    """The pack's own install.py: once, as nobody special, with a time limit, and with everything it may want from an index already there."""
    return [
        "",
        f"# -- install.py of {name} ".ljust(98, "-"),
        f"FROM runtime AS pack-{index}",
        f"COPY --chown={UID}:{UID} packs/{name}/ {COMFYUI}/custom_nodes/{name}/",
        f"WORKDIR {COMFYUI}/custom_nodes/{name}",
        f"USER {UID}:{UID}",
        "ENV HOME=/tmp PIP_NO_INDEX=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 \\",
        f"    PYTHONPATH=/opt/pip/lib/python{python}/site-packages:{COMFYUI}",
        "RUN --mount=type=bind,from=tools,source=/opt/pip,target=/opt/pip \\",
        f"    timeout --kill-after=10 {settings.pack_install_s} {VENV}/bin/python {COMFYUI}/custom_nodes/{name}/install.py",
    ]


def _image(document: Mapping[str, Any], settings: Settings, installing: Sequence[str], lock_id: str) -> list[str]:
    comfyui = document["comfyui"]
    labels = {
        "org.opencontainers.image.title": "comfyplane-worker",
        "org.opencontainers.image.description": "ComfyUI with the node packs of one lock, and the agent that drives it",
        "org.opencontainers.image.source": settings.source,
        "org.opencontainers.image.version": lock_id[:12],
        "org.opencontainers.image.revision": comfyui.get("commit") or "",
        "org.opencontainers.image.base.name": settings.base_name or settings.base.partition("@")[0],
        "org.opencontainers.image.base.digest": settings.base_digest,
        "io.comfyplane.lock": lock_id,
        "io.comfyplane.agent": settings.agent_version,
        "io.comfyplane.comfyui.version": comfyui.get("version") or "",
        "io.comfyplane.comfyui.repository": comfyui.get("repository") or "",
    }
    shown = [f"{key}={_quoted(value)}" for key, value in labels.items() if value]
    return [
        "",
        "# -- the image ----------------------------------------------------------------------------------",
        f"FROM runtime AS {FINAL_STAGE}",
        f"WORKDIR {AGENT}",
        *(f"COPY --from=pack-{index} {COMFYUI}/custom_nodes/{name}/ {COMFYUI}/custom_nodes/{name}/" for index, name in enumerate(installing, start=1)),
        f"COPY --from=agent {AGENT} {AGENT}",
        f"COPY lock.json {AGENT}/lock.json",
        f"ENV PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\",
        f"    HOME={DATA} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\",
        f"    COMFYUI_DIR={COMFYUI} COMFYUI_PYTHON={VENV}/bin/python \\",
        f"    COMFYPLANE_WORK_DIR={DATA}/work COMFYPLANE_HEALTH_FILE={DATA}/health.json",
        "LABEL " + " \\\n      ".join(shown),
        f"USER {UID}:{UID}",
        "STOPSIGNAL SIGTERM",
        "HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 \\",
        f'    CMD ["{VENV}/bin/python", "-m", "fleet.agent.health"]',
        f'ENTRYPOINT ["{VENV}/bin/python", "-m", "fleet.agent"]',
    ]


def _quoted(value: object) -> str:
    """A label's value: one line of printable text, nothing that Docker would expand."""
    text = "".join(c for c in str(value) if c.isprintable())[:300]
    return '"' + text.replace("\\", "").replace('"', "'").replace("$", "") + '"'
