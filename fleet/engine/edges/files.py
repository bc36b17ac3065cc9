"""Files in and out: uploads and /view. Every name stays inside its directory."""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fleet.engine.directories import ANNOTATION, Directories, OutsideDirectory
from fleet.engine.edges.answers import Json, bare, engine_of

# Types a browser would run in the engine's origin are downloaded instead.
ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "application/javascript", "text/css", "image/svg+xml"}
PREVIEW_FORMATS = ("webp", "jpeg")


async def view(request: Request) -> Response:
    query, directories = request.query_params, engine_of(request).directories
    if "filename" not in query:
        return bare(404)
    name, kind = query["filename"], query.get("type", "output")
    if found := ANNOTATION.match(name):
        name, kind = found["name"], found["kind"]
    base = directories.of(kind)
    if not name or name.startswith("/") or ".." in name or base is None:
        return bare(400)
    try:
        folder = directories.inside(base, query.get("subfolder", ""))
        path = directories.inside(folder, Path(name).name)
    except (OutsideDirectory, ValueError):
        return bare(403)
    if not path.is_file():
        return bare(404)
    headers = {"content-disposition": f'filename="{path.name}"'}
    channel = query.get("channel", "rgba")
    if "preview" in query:
        body, media = await run_in_threadpool(_preview, path, query["preview"], channel)
        return Response(body, media_type=media, headers=headers)
    if channel in ("rgb", "a"):
        return Response(await run_in_threadpool(_channel, path, channel), media_type="image/png", headers=headers)
    media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(path, media_type="application/octet-stream" if media in ACTIVE_TYPES else media, headers=headers)


def _preview(path: Path, wanted: str, channel: str) -> tuple[bytes, str]:
    from PIL import Image

    name, _, quality = wanted.partition(";")
    if name not in PREVIEW_FORMATS or "a" in channel:
        name = "webp"
    with Image.open(path) as opened:
        image: Image.Image = opened.convert("RGB") if name == "jpeg" or channel == "rgb" else opened.copy()
    out = io.BytesIO()
    image.save(out, format=name, quality=int(quality) if quality.isdigit() else 90)
    return out.getvalue(), f"image/{name}"


def _channel(path: Path, channel: str) -> bytes:
    from PIL import Image

    with Image.open(path) as opened:
        if channel == "rgb":
            image: Image.Image = opened.convert("RGB")
        else:
            image = Image.new("RGBA", opened.size)
            image.putalpha(opened.convert("RGBA").getchannel("A"))
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


class _Upload:
    """One uploaded image and where its form wants it."""

    def __init__(self, form: FormData, directories: Directories) -> None:
        self.form = form
        self.image = form.get("image")
        self.kind = str(form.get("type") or "input")
        base = directories.of(self.kind)
        if base is None:
            raise KeyError(self.kind)
        self.base = base
        self.subfolder = str(form.get("subfolder") or "")
        self.overwrite = form.get("overwrite") in ("true", "1")

    def target(self, directories: Directories, name: str) -> Path:
        folder = directories.inside(self.base, self.subfolder)
        return directories.inside(folder, name)


async def upload_image(request: Request) -> Response:
    return await _upload(request, lambda body, form, directories: body)


async def upload_mask(request: Request) -> Response:
    return await _upload(request, _masked)


async def _upload(request: Request, change: Any) -> Response:
    directories = engine_of(request).directories
    async with request.form() as form:
        upload = _Upload(form, directories)
        if not isinstance(upload.image, UploadFile) or not upload.image.filename:
            return bare(400)
        try:
            target = upload.target(directories, upload.image.filename)
        except (OutsideDirectory, ValueError):
            return bare(400)
        body = await run_in_threadpool(change, await upload.image.read(), form, directories)
        saved = await run_in_threadpool(_save, target, body, overwrite=upload.overwrite)
    return Json({"name": saved.name, "subfolder": upload.subfolder, "type": upload.kind})


def _save(target: Path, body: bytes, *, overwrite: bool) -> Path:
    """Write an upload; an equal file is reused, a different one of that name kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    chosen, count = target, 0
    while not overwrite and chosen.exists():
        if hashlib.sha256(chosen.read_bytes()).digest() == hashlib.sha256(body).digest():
            return chosen
        count += 1
        chosen = target.with_name(f"{target.stem} ({count}){target.suffix}")
    chosen.write_bytes(body)
    return chosen


def _masked(body: bytes, form: FormData, directories: Directories) -> bytes:
    """The original image with the uploaded image's alpha."""
    from PIL import Image

    reference = json.loads(str(form["original_ref"]))
    base = directories.of(reference.get("type", "output"))
    assert base is not None
    original = directories.inside(directories.inside(base, reference.get("subfolder", "")), Path(reference["filename"]).name)
    with Image.open(original) as opened, Image.open(io.BytesIO(body)) as mask:
        image = opened.convert("RGBA")
        image.putalpha(mask.convert("RGBA").getchannel("A"))
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=4)
    return out.getvalue()


async def view_metadata(request: Request) -> Response:
    from fleet.engine import safetensors

    name = request.query_params.get("filename", "")
    path = engine_of(request).directories.model_path(request.path_params["folder"], name)
    if path is None or path.suffix != ".safetensors":
        return bare(404)
    metadata = await run_in_threadpool(safetensors.metadata, path)
    return Json(metadata) if metadata else bare(404)


ROUTES = [
    Route("/view", view, methods=["GET"]),
    Route("/view_metadata/{folder}", view_metadata, methods=["GET"]),
    Route("/upload/image", upload_image, methods=["POST"]),
    Route("/upload/mask", upload_mask, methods=["POST"]),
]
