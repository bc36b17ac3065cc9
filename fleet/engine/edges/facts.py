"""What the engine is and has: nodes, models, machine, faults."""

from __future__ import annotations

import platform
import sys
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleet.engine import COMPATIBLE_WITH, ENGINE_NAME, ENGINE_VERSION
from fleet.engine.directories import MODEL_FOLDERS
from fleet.engine.edges.answers import Json, bare, engine_of
from fleet.engine.faults import UnknownFault
from fleet.engine.sockets import FEATURES
from fleet.engine.specs import NODES


async def features(request: Request) -> Response:
    return Json(FEATURES)


async def system_stats(request: Request) -> Response:
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    system = {
        "os": sys.platform,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": COMPATIBLE_WITH,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": None,
        "embedded_python": False,
        "argv": sys.argv,
        "engine": {"name": ENGINE_NAME, "version": ENGINE_VERSION, "executes": "model-free core nodes"},
    }
    device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
    return Json({"system": system | {"machine": platform.machine()}, "devices": [device]})


async def object_info(request: Request) -> Response:
    directories = engine_of(request).directories
    return Json({name: known.described(directories) for name, known in NODES.items()})


async def one_object_info(request: Request) -> Response:
    known = NODES.get(request.path_params["name"])
    return Json({known.name: known.described(engine_of(request).directories)} if known else {})


async def model_folders(request: Request) -> Response:
    return Json(list(MODEL_FOLDERS))


async def models_in_folder(request: Request) -> Response:
    folder = request.path_params["folder"]
    return Json(engine_of(request).directories.model_files(folder)) if folder in MODEL_FOLDERS else bare(404)


async def embeddings(request: Request) -> Response:
    names = engine_of(request).directories.model_files("embeddings")
    return Json([name.rpartition(".")[0] for name in names])


async def model_folders_with_roots(request: Request) -> Response:
    directories = engine_of(request).directories
    hidden = ("configs", "custom_nodes")
    return Json([{"name": name, "folders": [str(root) for root in directories.model_roots(name)]} for name in MODEL_FOLDERS if name not in hidden])


async def model_files_with_times(request: Request) -> Response:
    directories, folder = engine_of(request).directories, request.path_params["folder"]
    if folder not in MODEL_FOLDERS:
        return bare(404)
    found: list[dict[str, Any]] = []
    roots = directories.model_roots(folder)
    for name in directories.model_files(folder):
        path = directories.model_path(folder, name)
        if path is not None:
            facts = path.stat()
            index = next((i for i, root in enumerate(roots) if (root / name).is_file()), 0)
            found.append({"name": name, "pathIndex": index, "modified": facts.st_mtime, "created": facts.st_ctime, "size": facts.st_size})
    return Json(found)


async def folder_paths(request: Request) -> Response:
    directories = engine_of(request).directories
    return Json({name: [str(root) for root in directories.model_roots(name)] for name in MODEL_FOLDERS})


async def nothing_listed(request: Request) -> Response:
    return Json([])


async def nothing_named(request: Request) -> Response:
    return Json({})


async def faults(request: Request) -> Response:
    engine = engine_of(request)
    if not engine.allow_faults:
        return bare(404)
    try:
        engine.faults.set(await request.json())
    except (UnknownFault, ValueError) as error:
        return Json({"error": str(error)}, status_code=400)
    return Json(engine.faults.shown())


ROUTES = [
    Route("/features", features),
    Route("/system_stats", system_stats),
    Route("/object_info", object_info),
    Route("/object_info/{name}", one_object_info),
    Route("/models", model_folders),
    Route("/models/{folder}", models_in_folder),
    Route("/embeddings", embeddings),
    Route("/experiment/models", model_folders_with_roots),
    Route("/experiment/models/{folder}", model_files_with_times),
    Route("/internal/folder_paths", folder_paths),
    Route("/extensions", nothing_listed),
    Route("/workflow_templates", nothing_named),
    Route("/_fault", faults, methods=["POST"]),
]
