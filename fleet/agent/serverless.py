"""One request without a control plane: the payload of a serverless ComfyUI worker in, its output out.

Every check comes before the work it protects from: sizes before decoding, names before writing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.agent import deliver, inputs, mediatypes, outputs, prefixes
from fleet.agent.classify import Failure, no_outputs
from fleet.agent.comfy import EngineUnreachable
from fleet.agent.config import Settings
from fleet.agent.drive import Drive
from fleet.agent.keeper import Hopeless, Keeper
from fleet.agent.order import Order

MAX_IMAGES = 32
MAX_IMAGE_BYTES = 32 * 1024**2
MAX_TOTAL_BYTES = 128 * 1024**2
MAX_NODES = 5000
MAX_OUTPUT_BYTES = 256 * 1024**2
TIMEOUT_S = 900.0
STALL_S = 300.0
PICTURES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif", "image/heic")


class BadRequest(Exception):
    """The payload cannot be run as it is."""

    def __init__(self, code: str, message: str, suggestion: str) -> None:
        super().__init__(message)
        self.code, self.message, self.suggestion = code, message, suggestion

    def body(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "suggestion": self.suggestion}


@dataclass(frozen=True)
class Request:
    workflow: dict[str, Any]
    images: tuple[tuple[str, bytes], ...]
    api_key: str | None


def parse(payload: Any) -> Request:
    """The checked request. Raises BadRequest with what is wrong and what would be right."""
    given = payload.get("input") if isinstance(payload, dict) else None
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise BadRequest("invalid_json", f"`input` is not valid JSON: {error}", "Send `input` as an object.") from error
    if not isinstance(given, dict):
        raise BadRequest("input_missing", "The payload has no `input` object.", 'Send {"input": {"workflow": {...}}}.')
    key = given.get("comfy_org_api_key")
    if key is not None and not isinstance(key, str):
        raise BadRequest("invalid_api_key", "`comfy_org_api_key` must be a string.", "Send the key as text, or leave it out.")
    return Request(_workflow(given.get("workflow")), _images(given.get("images")), key or None)


def _workflow(raw: Any) -> dict[str, Any]:
    if raw is None:
        raise BadRequest("workflow_missing", "`workflow` is missing.", "Export the workflow with Save (API format) and send it as `workflow`.")
    if not isinstance(raw, dict) or not raw:
        raise BadRequest("invalid_workflow", "`workflow` must be an object of nodes.", "Export the workflow with Save (API format).")
    if isinstance(raw.get("nodes"), list):
        raise BadRequest("ui_format", "`workflow` is in the canvas format.", "Export it with Save (API format) instead of Save.")
    if len(raw) > MAX_NODES:
        raise BadRequest("workflow_too_large", f"`workflow` has more than {MAX_NODES} nodes.", "Split the workflow.")
    for node_id, node in raw.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str) or not isinstance(node.get("inputs", {}), dict):
            raise BadRequest("invalid_node", f"Node {node_id} needs a class_type and inputs.", "Export the workflow with Save (API format).")
    return raw


def _images(raw: Any) -> tuple[tuple[str, bytes], ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise BadRequest("invalid_images", "`images` must be a list.", 'Send [{"name": "photo.png", "image": "<base64>"}].')
    if len(raw) > MAX_IMAGES:
        raise BadRequest("too_many_images", f"More than {MAX_IMAGES} images.", "Send fewer images in one request.")
    found: dict[str, bytes] = {}
    total = 0
    for position, entry in enumerate(raw):
        where = f"images[{position}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not isinstance(entry.get("image"), str):
            raise BadRequest("invalid_image", f"{where} needs `name` and `image`, both text.", 'Send {"name": "photo.png", "image": "<base64>"}.')
        try:
            folder, base = inputs.safe_name(entry["name"])
        except ValueError as error:
            raise BadRequest("unsafe_name", f"{where}: {error}", "Use a plain relative file name such as photo.png.") from error
        name = f"{folder}/{base}" if folder else base
        if name in found:
            raise BadRequest("duplicate_name", f"{where}: {name} is given twice.", "Give every image its own name.")
        data = _decoded(entry["image"], where)
        total += len(data)
        if total > MAX_TOTAL_BYTES:
            raise BadRequest("images_too_large", f"The images have more than {MAX_TOTAL_BYTES} bytes.", "Send fewer or smaller images.")
        found[name] = data
    return tuple(found.items())


def _decoded(text: str, where: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadRequest("invalid_data_uri", f"{where}: the data URI is not base64.", "Use data:image/png;base64,...")
    # Base64 carries 3 bytes in 4 characters: the size is known before a byte is decoded.
    if len(text) * 3 // 4 > MAX_IMAGE_BYTES + 3:
        raise BadRequest("image_too_large", f"{where} has more than {MAX_IMAGE_BYTES} bytes.", "Send a smaller image.")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("invalid_base64", f"{where} is not valid base64: {error}", "Encode the file's bytes with standard base64.") from error
    if mediatypes.sniff(data) not in PICTURES:
        raise BadRequest("not_an_image", f"{where} is no image of a known type.", "Send PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF.")
    return data


def run(payload: Any, settings: Settings | None = None) -> dict[str, Any]:
    """The answer to one payload: {"output": ...} or {"error": ...}. Starts and ends an engine of its own."""
    try:
        request = parse(payload)
    except BadRequest as error:
        return {"error": error.body()}
    with tempfile.TemporaryDirectory(prefix="comfyplane-serverless-", ignore_cleanup_errors=True) as directory:
        return asyncio.run(_run(request, settings or Settings(), Path(directory)))


async def _run(request: Request, settings: Settings, work_dir: Path) -> dict[str, Any]:
    keeper = Keeper(settings.engine, work_dir, settings.patience)
    try:
        await keeper.start()
        return await execute(request, keeper, settings)
    except (Hopeless, EngineUnreachable) as error:
        return _error(Failure("engine_crashed", f"ComfyUI did not come up: {error}", "platform", "Try again."))
    finally:
        await keeper.close()


async def execute(request: Request, keeper: Keeper, settings: Settings) -> dict[str, Any]:
    """Run a checked request on a ready engine."""
    graph = request.workflow
    for name, data in request.images:
        folder, base = inputs.safe_name(name)
        stored = await keeper.comfy.upload(base, data, mediatypes.sniff(data), folder)
        if stored != name:
            graph = _renamed(graph, name, stored)
    socket = keeper.socket()
    extra = {"api_key_comfy_org": request.api_key} if request.api_key else {}
    unique = prefixes.folder("serverless", 1)
    order = Order(prefixes.make_unique(graph, unique), extra, timeout_s=TIMEOUT_S, stall_s=STALL_S, max_stream_bytes=MAX_OUTPUT_BYTES)
    drive = Drive(keeper.comfy, socket, order, patience=settings.patience, classes=keeper.classes)
    keeper.engine.on_death = drive.engine_died
    try:
        conclusion = await drive.conclude()
        if conclusion.failure is not None:
            return _error(conclusion.failure)
        found = outputs.collect(outputs.merge(conclusion.history, conclusion.executed), unique=unique, frames=conclusion.frames)
        if not found.outputs:
            return _error(no_outputs(found.reported))
        left, rows = MAX_OUTPUT_BYTES, []
        for item in found.outputs:
            fetched = await deliver.fetch(item, keeper.comfy, left)
            left -= len(fetched.data)
            rows.append((mediatypes.kind(fetched.media_type), fetched))
    except deliver.NotDelivered as error:
        return _error(error.failure)
    finally:
        keeper.engine.on_death = None
        await socket.close()
    answer: dict[str, Any] = {"images": [_entry(f) for kind, f in rows if kind == "image"]}
    texts = [f.data.decode("utf-8", "replace") for kind, f in rows if kind == "text"]
    files = [_entry(f) for kind, f in rows if kind not in ("image", "text")]
    return {"output": {**answer, **({"texts": texts} if texts else {}), **({"files": files} if files else {})}}


def _renamed(graph: Mapping[str, Any], name: str, stored: str) -> dict[str, Any]:
    return {node_id: {**node, "inputs": {k: stored if v == name else v for k, v in node.get("inputs", {}).items()}} for node_id, node in graph.items()}


def _entry(fetched: deliver.Fetched) -> dict[str, Any]:
    data = base64.b64encode(fetched.data).decode("ascii")
    return {"filename": fetched.found.name, "type": "base64", "media_type": fetched.media_type, "data": data}


def _error(failure: Failure) -> dict[str, Any]:
    return {"error": failure.body()}


def main(source: str, settings: Settings) -> int:
    """Read the payload from a file or `-`, print the answer; 1 when it is an error."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
        answer = run(json.loads(text), settings)
    except (OSError, ValueError) as error:
        answer = {"error": BadRequest("invalid_json", f"The input cannot be read: {error}", "Send one JSON object.").body()}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0
