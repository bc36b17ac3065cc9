"""Read the public node lists: class to pack, packs, and models, out of a folder, an archive or one file.

Pure but for reading bytes. The lists come from strangers: sizes, counts and every text are bounded,
an entry that cannot be read is left out and counted, and nothing in them is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builds.dependencies import folders, patterns, spelling
from builds.dependencies.families import listed
from builds.dependencies.model_needs import web_address
from controlplane.kernel.errors import Invalid, NotFound, TooLarge

MAX_FILE_BYTES = 40_000_000
MAX_ARCHIVE_BYTES = 60_000_000
MAX_PACKS = 50_000
MAX_CLAIMS = 500_000
MAX_MODELS = 50_000
NODE_MAP, PACK_LIST, MODEL_LIST, STATS = "node_map", "pack_list", "model_list", "stats"
NAMES = {"extension-node-map.json": NODE_MAP, "custom-node-list.json": PACK_LIST, "model-list.json": MODEL_LIST, "github-stats.json": STATS}
_FIX = "Name a folder, a wheel or zip, or one of: " + ", ".join(NAMES) + "."


@dataclass
class ListedPack:
    """A pack as the lists tell it."""

    key: str
    repository: str
    title: str = ""
    author: str = ""
    description: str = ""
    list_id: str = ""
    stars: int | None = None
    updated_at: datetime | None = None
    deprecated: bool = False
    patterns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ListedModel:
    """A model file as the list tells it."""

    filename: str
    directory: str
    url: str
    base: str
    family: str
    size: str


@dataclass
class Lists:
    """Everything read, ready to be kept. `claims` are (pack key, class) with whether the list prefers that pack."""

    packs: dict[str, ListedPack] = field(default_factory=dict)
    claims: dict[tuple[str, str], bool] = field(default_factory=dict)
    models: dict[tuple[str, str, str], ListedModel] = field(default_factory=dict)
    sources: list[tuple[str, str, int]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _, _ in self.sources}

    def skip(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


def from_path(path: Path) -> Lists:
    """The lists in a folder (at any depth of three), an archive, or one file."""
    try:
        if path.is_dir():
            found = [one for pattern in ("*", "*/*", "*/*/*") for one in sorted(path.glob(f"{pattern}.json")) if one.name in NAMES and one.is_file()]
            first = {one.name: one for one in reversed(found)}
            return read({name: _bytes(one) for name, one in first.items()})
        return from_bytes(path.name, _bytes(path))
    except OSError as error:
        raise NotFound("file_unreadable", f"Cannot read {str(path)[:200]}: {error.strerror}.", "Check the path.") from error


def from_bytes(name: str, data: bytes) -> Lists:
    """The lists in the bytes of an archive or of one file."""
    if data.startswith(b"PK\x03\x04"):
        return read(_archive(data))
    known = NAMES.get(name.rpartition("/")[2])
    return read({name.rpartition("/")[2] if known else "": data})


def read(files: Mapping[str, bytes]) -> Lists:
    """The lists in files by name; a file of another name is told by its content."""
    lists = Lists()
    documents: dict[str, Any] = {}
    for name, data in files.items():
        document = _json(data, name)
        kind = NAMES.get(name) or _kind(document)
        if not kind or kind in documents:
            continue
        documents[kind] = document
        lists.sources.append((kind, hashlib.sha256(data).hexdigest(), 0))
    if not documents:
        raise Invalid("no_node_lists", "There is no public node list in it.", _FIX)
    sizes = {kind: reader(lists, documents[kind]) for kind, reader in _READERS.items() if kind in documents}
    lists.sources = [(kind, sha256, sizes.get(kind, 0)) for kind, sha256, _ in lists.sources]
    if not any(sizes.values()):
        raise Invalid("node_lists_empty", "No entry of the list can be read.", _FIX, details={"left_out": lists.left_out})
    return lists


def _kind(document: Any) -> str:
    if isinstance(document, Mapping):
        if isinstance(document.get("custom_nodes"), list):
            return PACK_LIST
        if isinstance(document.get("models"), list):
            return MODEL_LIST
        some = next(iter(document.values()), None)
        if isinstance(some, list) and some and isinstance(some[0], list):
            return NODE_MAP
        if isinstance(some, Mapping) and "stars" in some:
            return STATS
    return ""


def _packs(lists: Lists, document: Any) -> int:
    entries = document.get("custom_nodes") if isinstance(document, Mapping) else None
    count = 0
    for raw in _some(entries, MAX_PACKS, "packs"):
        if not isinstance(raw, Mapping):
            lists.skip("packs that are no table")
            continue
        files = raw.get("files")
        # What is installed are the files; the reference may be a page about them.
        named = [*(files[:20] if isinstance(files, list) else ()), raw.get("reference")]
        address = next((found for one in named if (found := spelling.repository(one))), "")
        if not address:
            lists.skip("packs without a readable address")
            continue
        pack = _pack(lists, address)
        pack.title, pack.author = _text(raw.get("title"), 200), _text(raw.get("author"), 120)
        pack.description = _text(raw.get("description"), 500)
        pack.list_id = spelling.registry_id(raw.get("id"))
        pack.deprecated = bool(re.search(r"deprecated|no longer maintained|not maintained", f"{pack.title} {pack.description[:200]}", re.IGNORECASE))
        _pattern(lists, pack, raw.get("nodename_pattern"))
        _preferences(lists, pack, raw.get("preemptions"))
        count += 1
    return count


def _node_map(lists: Lists, document: Any) -> int:
    if not isinstance(document, Mapping):
        return 0
    count = 0
    for address, raw in _some(document.items(), MAX_PACKS, "packs"):
        repository = spelling.repository(address)
        if not repository or not isinstance(raw, list) or not raw or not isinstance(raw[0], list):
            lists.skip("node map entries that cannot be read")
            continue
        pack = _pack(lists, repository)
        meta = raw[1] if len(raw) > 1 and isinstance(raw[1], Mapping) else {}
        pack.title = pack.title or _text(meta.get("title_aux") or meta.get("title"), 200)
        pack.author = pack.author or _text(meta.get("author"), 120)
        pack.description = pack.description or _text(meta.get("description"), 500)
        _pattern(lists, pack, meta.get("nodename_pattern"))
        for name in raw[0]:
            if not _is_class(name):
                lists.skip("class names that cannot be read")
                continue
            if len(lists.claims) >= MAX_CLAIMS:
                raise TooLarge("node_list_too_large", f"The list names more than {MAX_CLAIMS:,} classes.", "Import one list at a time.")
            lists.claims.setdefault((pack.key, name), False)
            count += 1
        _preferences(lists, pack, meta.get("preemptions"))
    return count


def _models(lists: Lists, document: Any) -> int:
    entries = document.get("models") if isinstance(document, Mapping) else None
    count = 0
    for raw in _some(entries, MAX_MODELS, "models"):
        filename = raw.get("filename") if isinstance(raw, Mapping) else None
        url = web_address(raw.get("url")) if isinstance(raw, Mapping) else ""
        if not isinstance(filename, str) or not url or spelling.unsafe_path(filename) or not _storable(filename) or filename.startswith("<"):
            lists.skip("models without a file name or address")
            continue
        place = raw.get("save_path")
        directory = folders.canonical(place if place != "default" else _BY_TYPE.get(str(raw.get("type", "")).lower(), ""))
        if not directory or not _storable(directory):
            lists.skip("models without a folder")
            continue
        base = _text(raw.get("base"), 60)
        lists.models[(spelling.basename(filename), directory, url)] = ListedModel(
            spelling.basename(filename), directory, url, base, listed(base), _text(raw.get("size"), 20)
        )
        count += 1
    return count


def _stats(lists: Lists, document: Any) -> int:
    count = 0
    for address, raw in _some(document.items() if isinstance(document, Mapping) else (), MAX_PACKS, "packs"):
        repository = spelling.repository(address)
        if not repository or not isinstance(raw, Mapping):
            continue
        pack = _pack(lists, repository)
        stars = raw.get("stars")
        if isinstance(stars, int) and not isinstance(stars, bool) and 0 <= stars < 2_000_000_000:
            pack.stars = stars
        pack.updated_at = _moment(raw.get("last_update"))
        count += 1
    return count


_READERS = {PACK_LIST: _packs, NODE_MAP: _node_map, STATS: _stats, MODEL_LIST: _models}
_BY_TYPE = {
    **{"checkpoint": "checkpoints", "checkpoints": "checkpoints", "unclip": "checkpoints", "lora": "loras", "vae": "vae", "taesd": "vae_approx"},
    **{"controlnet": "controlnet", "t2i-adapter": "controlnet", "t2i-style": "style_models", "clip": "text_encoders", "clip_vision": "clip_vision"},
    **{"diffusion_model": "diffusion_models", "unet": "diffusion_models", "upscale": "upscale_models", "embedding": "embeddings", "gligen": "gligen"},
}


def _pack(lists: Lists, repository: str) -> ListedPack:
    key = spelling.repository_key(repository)
    if key not in lists.packs and len(lists.packs) >= MAX_PACKS:
        raise TooLarge("node_list_too_large", f"The list names more than {MAX_PACKS:,} packs.", "Import one list at a time.")
    return lists.packs.setdefault(key, ListedPack(key, repository))


def _pattern(lists: Lists, pack: ListedPack, said: Any) -> None:
    if not said:
        return
    pattern = patterns.safe(said) if _storable(said) else ""
    if pattern and pattern not in pack.patterns and len(pack.patterns) < 4:
        pack.patterns.append(pattern)
    elif not pattern:
        lists.skip("name patterns that may not be evaluated")


def _preferences(lists: Lists, pack: ListedPack, said: Any) -> None:
    for name in said[:5_000] if isinstance(said, list) else ():
        if _is_class(name):
            lists.claims[(pack.key, name)] = True


def _some(entries: Any, limit: int, what: str) -> Iterator[Any]:
    if not isinstance(entries, Iterable) or isinstance(entries, str | bytes | Mapping):
        return
    for at, one in enumerate(entries):
        if at >= limit:
            raise TooLarge("node_list_too_large", f"The list names more than {limit:,} {what}.", "Import one list at a time.")
        yield one


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 200 and _storable(name)


def _storable(text: Any) -> bool:
    return isinstance(text, str) and "\x00" not in text and not any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _text(value: Any, limit: int) -> str:
    return " ".join(value.split())[:limit] if _storable(value) else ""


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) and len(value) <= 40 else None
    except ValueError:
        return None


def _json(data: bytes, name: str) -> Any:
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge("node_list_too_large", f"{name or 'The file'} is larger than {MAX_FILE_BYTES:,} bytes.", "Import one list at a time.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid("node_list_unreadable", f"{name or 'The file'} is not JSON.", _FIX) from error


def _bytes(path: Path) -> bytes:
    limit = MAX_FILE_BYTES if path.suffix == ".json" else MAX_ARCHIVE_BYTES
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise TooLarge("node_list_too_large", f"{path.name[:100]} is larger than {limit:,} bytes.", "Import one list at a time.")
    return data


def _archive(data: bytes) -> dict[str, bytes]:
    """The lists in a wheel or zip, each read up to the limit whatever the archive says of its size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: one for one in archive.infolist() if (name := one.filename.rpartition("/")[2]) in NAMES}
            found = {}
            for name, member in members.items():
                with archive.open(member) as stream:
                    found[name] = stream.read(MAX_FILE_BYTES + 1)
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError) as error:
        raise Invalid("archive_damaged", "The archive cannot be unpacked.", "Fetch it again.") from error
