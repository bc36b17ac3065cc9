"""One spelling for what people write in many ways: repository addresses, pack names, model file names.

`.git`, capital letters, a trailing slash, a raw file or a gist, `git@host:`: all of them name one
repository. A pack's registry id is mostly its repository's name in small letters, so names are
compared as slugs.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

MAX_ADDRESS = 300
CORE_REPOSITORIES = frozenset({"https://github.com/comfyanonymous/comfyui", "https://github.com/comfy-org/comfyui"})
CORE_IDS = frozenset({"comfy-core", "comfyui", "comfyui-core"})

_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_SCP = re.compile(r"(?:ssh://)?git@([A-Za-z0-9.-]+)[:/](.+)")
_PART = re.compile(r"[A-Za-z0-9._~+-]{1,100}")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,200}[a-z0-9])?(?::[0-9]{1,5})?")
_RAW = {"raw.githubusercontent.com": "github.com", "gist.githubusercontent.com": "gist.github.com", "www.github.com": "github.com"}
_TWO_PARTS = frozenset({"github.com", "gitee.com", "gist.github.com", "codeberg.org", "bitbucket.org", "huggingface.co"})
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_VERSION = re.compile(r"v?\d+(?:\.\d+){0,4}[A-Za-z0-9.+-]{0,40}")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))})


def repository(text: object) -> str:
    """The https address of the repository that `text` names (an address, `owner/name`, a file in it), or empty."""
    if not isinstance(text, str):
        return ""
    said = text.strip()
    if not said or len(said) > MAX_ADDRESS:
        return ""
    if _SHORT.fullmatch(said) and "." not in said.partition("/")[0]:
        said = f"https://github.com/{said}"
    scp = _SCP.fullmatch(said)
    if scp:
        said = f"https://{scp.group(1)}/{scp.group(2)}"
    try:
        parts = urlsplit(said.removeprefix("git+"))
        host, path = parts.netloc.rpartition("@")[2].lower(), unquote(parts.path)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https", "git", "ssh") or not _HOST.fullmatch(host) or "." not in host:
        return ""
    host = _RAW.get(host, host)
    pieces = [piece for piece in path.split("/") if piece]
    if host in _TWO_PARTS:
        pieces = pieces[:2]
        if len(pieces) < 2:
            return ""
    if not pieces or not all(_PART.fullmatch(piece) and piece.strip(".") for piece in pieces):
        return ""
    pieces[-1] = pieces[-1].removesuffix(".git")
    return f"https://{host}/{'/'.join(pieces)}" if pieces[-1] else ""


def repository_key(address: str) -> str:
    """The key of a pack by its repository: hosts that take any case get small letters."""
    return address.lower()


def slug(name: object) -> str:
    """A pack's name for comparing: small letters and digits, single hyphens."""
    text = name if isinstance(name, str) else ""
    return re.sub(r"[^a-z0-9]+", "-", text[:120].lower()).strip("-")


def name_of(address: str) -> str:
    """The slug of a repository's own name."""
    return slug(address.rstrip("/").rpartition("/")[2])


def registry_id(text: object) -> str:
    """A registry id as the registry writes it, or empty."""
    said = text.strip() if isinstance(text, str) else ""
    return said.lower() if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", said) else ""


def version(text: object) -> str:
    """A full or short commit, or a registry version; empty for words such as `nightly` that name no fixed state."""
    said = text.strip() if isinstance(text, str) else ""
    if _COMMIT.fullmatch(said.lower()) and not said.isdecimal():
        return said.lower()
    return said.removeprefix("v") if _VERSION.fullmatch(said) else ""


def is_commit(text: str) -> bool:
    """Whether a version is a commit, full or short."""
    return _COMMIT.fullmatch(text) is not None and not text.isdecimal()


def model_path(name: str) -> str:
    """A model's name with forward slashes."""
    return name.replace("\\", "/").strip()


def basename(name: str) -> str:
    """The file's own name, without folders."""
    return model_path(name).rpartition("/")[2]


def unsafe_path(name: str) -> str:
    """Why a model name must never become a path, or empty."""
    path = model_path(name)
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "it is an absolute path"
    if ".." in path.split("/"):
        return "it climbs out of the models folder"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "it holds control characters"
    if any(piece.partition(".")[0].strip().lower() in _RESERVED for piece in path.split("/")):
        return "it is the name of a device"
    return "it is longer than 300 characters" if len(path) > 300 else ""
