"""Whether a lock document is one: every name a name, every hash a hash, every path inside its folder.

Locks come from files too; what passes here may be written into a Dockerfile or a path. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from builds.findings import ERROR, Finding, finding
from builds.locking import document
from builds.locking.document import ARCHES, COMMIT, LAYERS, SHA256, Lock
from controlplane.kernel.errors import Invalid

MAX = {"packs": 512, "python_packages": 2_000, "models": 512, "classes": 10_000, "constraints": 500}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PYTHON = re.compile(r"3\.\d{1,2}")
_REPOSITORY = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?/[A-Za-z0-9._~/+%-]{1,250}")
_REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PACKAGE = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]{0,99}")
_URL = re.compile(r"git\+https://[^\s'\"\\@#]+@[0-9a-f]{40}(#[^\s'\"\\]*)?|https://[^\s'\"\\]+")
_LINE = re.compile(r"[A-Za-z0-9 ._<>=!~,;+\[\]()'\"@:/*-]{1,300}")
_WEB = re.compile(r"(https?|s3|hf|file)://[^\s'\"\\<>]{1,1990}")
_DEVICE = re.compile(r"(con|prn|aux|nul|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.I)


def check(lock: Mapping[str, Any]) -> Lock:
    """The document in normal form. Raises Invalid `lock_malformed` with every fault as details."""
    if lock.get("schema", document.SCHEMA) != document.SCHEMA:
        raise Invalid("lock_schema_unknown", f"{str(lock.get('schema'))[:60]!r} is not {document.SCHEMA}.", "Import it with its own format's name.")
    normal = document.normal(lock)
    faults = list(_faults(normal))
    if faults:
        more = f" And {len(faults) - 1} more." if len(faults) > 1 else ""
        raise Invalid("lock_malformed", faults[0]["message"] + more, "Make the lock again.", details={"findings": faults[:50]})
    return normal


def path_trouble(path: str) -> str:
    """Why `path` may not be a file's path below a folder; "" when it may. Holds for Windows too, where such files are made."""
    if not path or len(path) > 300:
        return "is empty or too long"
    if any(ord(c) < 32 or ord(c) == 127 or c in '\\<>:"|?*' for c in path):
        return "holds characters that no file name may have"
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder"
    if any(_DEVICE.fullmatch(part) or part.endswith((".", " ")) or part.startswith(" ") for part in parts):
        return "holds the name of a device, or a name that ends with a dot or space"
    return ""


def is_address(url: str) -> bool:
    """Whether a model may be fetched from there, as far as its spelling tells."""
    return _WEB.fullmatch(url) is not None


def _odd(value: Any) -> bool:
    """Whether any text in it holds what no database column, terminal or file should: control characters, halves of characters."""
    if isinstance(value, str):
        return any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) <= 0xDFFF for c in value)
    if isinstance(value, Mapping):
        return any(map(_odd, value.values()))
    return isinstance(value, list) and any(map(_odd, value))


def _faults(lock: Lock) -> Iterator[Finding]:
    for part, held in lock.items():
        if _odd(held):
            yield _fault(part, f"{part} holds control characters.")
    for part, most in MAX.items():
        if len(lock[part]) > most:
            yield _fault(part, f"{part} holds more than {most:,} entries.")
    if lock["platform"]["os"] != "linux" or lock["platform"]["arch"] not in ARCHES:
        yield _fault("platform", f"The platform must be linux on {' or '.join(ARCHES)}.")
    if not _PYTHON.fullmatch(str(lock["python"]["version"])):
        yield _fault("python", f"{str(lock['python']['version'])[:20]!r} is no Python version like 3.11.")
    base = lock["base_image"]
    if not _REFERENCE.fullmatch(str(base["reference"])) or not (base["digest"] == "" or _DIGEST.fullmatch(str(base["digest"]))):
        yield _fault("base_image", "The base image is not a name with a sha256 digest.")
    if not COMMIT.fullmatch(str(lock["comfyui"]["commit"])):
        yield _fault("comfyui", "ComfyUI's commit is not 40 hex digits.")
    if not _REPOSITORY.fullmatch(str(lock["comfyui"]["repository"])):
        yield _fault("comfyui", "ComfyUI's repository is not an https address.")
    for pack in lock["packs"]:
        yield from _pack_faults(pack)
    for package in lock["python_packages"]:
        yield from _package_faults(package)
    for model in lock["models"]:
        yield from _model_faults(model)
    for line in lock["constraints"]:
        if not _LINE.fullmatch(line):
            yield _fault("constraints", f"{line[:80]!r} is no constraint.")
    for name in lock["classes"]:
        if not name or len(name) > 200 or any(ord(c) < 32 for c in name):
            yield _fault("classes", f"{name[:80]!r} is no node class.")


def _pack_faults(pack: Mapping[str, Any]) -> Iterator[Finding]:
    key = str(pack["key"])
    where = f"Pack {key[:120]!r}"
    if not key or len(key) > 300:
        yield _fault("packs", f"{where} has no key.")
    if not isinstance(pack["folder"], str) or not _FOLDER.fullmatch(pack["folder"]) or path_trouble(pack["folder"]):
        yield _fault("packs", f"{where} would lie in {str(pack['folder'])[:80]!r}, which is no plain directory name.")
    if pack["commit"]:
        if not COMMIT.fullmatch(str(pack["commit"])) or not _REPOSITORY.fullmatch(str(pack["repository"])):
            yield _fault("packs", f"{where} has no full commit of an https repository.")
    elif not (pack["registry_id"] and pack["version"] and SHA256.fullmatch(str(pack["sha256"]))):
        yield _fault("packs", f"{where} has neither a commit nor a registry version with the hash of its archive.")
    if not isinstance(pack["install_script"], bool):
        yield _fault("packs", f"{where}: install_script is not true or false.")


def _package_faults(package: Mapping[str, Any]) -> Iterator[Finding]:
    name, url = str(package["name"]), str(package["url"])
    if not _PACKAGE.fullmatch(name):
        yield _fault("python_packages", f"{name[:80]!r} is no package name in normal form.")
    if url and not _URL.fullmatch(url):
        yield _fault("python_packages", f"{name[:80]} comes from {url[:120]!r}, which is not exact.")
    if not url and not _VERSION.fullmatch(str(package["version"])):
        yield _fault("python_packages", f"{name[:80]} has no exact version.")
    if not all(_DIGEST.fullmatch(one) for one in package["hashes"]):
        yield _fault("python_packages", f"{name[:80]} has a hash that is not sha256:….")
    if not package["hashes"] and not url.startswith("git+"):
        yield _fault("python_packages", f"{name[:80]} has no hash.")
    if package["layer"] not in LAYERS:
        yield _fault("python_packages", f"{name[:80]} is of no layer.")


def _model_faults(model: Mapping[str, Any]) -> Iterator[Finding]:
    path = f"{model['directory']}/{model['filename']}"
    if trouble := path_trouble(path):
        yield _fault("models", f"The model path {path[:120]!r} {trouble}.")
    if model["sha256"] and not SHA256.fullmatch(str(model["sha256"])):
        yield _fault("models", f"{path[:120]} has a hash that is not 64 hex digits.")
    size = model["size_bytes"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        yield _fault("models", f"{path[:120]} has no size in bytes.")
    for url in model["urls"]:
        if not _WEB.fullmatch(url):
            yield _fault("models", f"{path[:120]} comes from {url[:120]!r}, which is no address.")


def _fault(field: str, message: str) -> Finding:
    return finding(ERROR, "lock_malformed", message, field=field)
