"""Why a build failed, in words that say what to do. Pure: from what BuildKit said to the error the build keeps."""

from __future__ import annotations

from typing import Any

from builds.images.progress import Progress, Step, exit_code
from controlplane.kernel.errors import Invalid, Unavailable, WorkflowError

MAX_DETAILS_LINES = 30
_NO_ENGINE = ("Cannot connect to the Docker daemon", "error during connect", "transport is closing", "EOF")
_TIMED_OUT = (124, 137)


def of_build(progress: Progress, code: int, *, pack_install_s: int) -> WorkflowError:
    """The error of a build that ended with `code`; details: step, its last lines, and what BuildKit made of it."""
    step = progress.failed
    if step is None:
        last = progress.trailing[-MAX_DETAILS_LINES:]
        if any(words in line for line in last for words in _NO_ENGINE):
            return Unavailable("docker_unavailable", "The Docker engine went away.", "Start it, then build again.", details={"tail": last})
        return Invalid("build_failed", f"Docker ended with code {code}.", "Its last lines say why.", details={"tail": last})
    details = {"step": step.name, "tail": step.tail[-MAX_DETAILS_LINES:] or [step.error], "reason": step.error[-500:]}
    if any("No space left on device" in line for line in (*step.tail, step.error)):
        return Unavailable("disk_full", "The engine's disk is full.", "Free some (docker builder prune), then build again.", details=details)
    if step.stage.startswith("pack-") and step.instruction == "RUN":
        return _pack_install(step, details, pack_install_s)
    if " -m pip " in step.name:
        fix = "The last lines name the package. Is the index reachable (BUILD_PACKAGE_INDEX, BUILD_NETWORK)?"
        return Invalid("packages_failed", "Python packages could not be installed.", fix, details=details)
    if "load metadata" in step.name or step.instruction == "FROM":
        fix = "Load it into the engine, or set BUILD_BASE_IMAGE to where it is to be had."
        return Unavailable("base_image_unreachable", "The base image cannot be had.", fix, details=details)
    return Invalid("build_failed", "A step of the build failed.", "Its last lines say why.", details=details)


def _pack_install(step: Step, details: dict[str, Any], limit_s: int) -> WorkflowError:
    status = exit_code(step.error)
    details = {**details, "exit_code": status}
    if status in _TIMED_OUT:
        fix = "It may wait for an answer nobody gives, or for a download; raise BUILD_PACK_INSTALL_S if it is only slow."
        return Invalid("pack_install_timed_out", f"A pack's install.py did not end within {limit_s} s.", fix, details=details)
    return Invalid("pack_install_failed", f"A pack's install.py failed with exit code {status}.", "Its last lines say why.", details=details)


def timed_out(seconds: int, step: str) -> WorkflowError:
    """The whole build took too long."""
    fix = "Look at the slowest step; raise BUILD_TIMEOUT_S if it needs the time."
    return Unavailable("build_timed_out", f"The build took longer than {seconds} s.", fix, details={"step": step})


def of_builder(error: Exception) -> dict[str, Any]:
    """A bug or a broken machine, not the lock."""
    return {
        "code": "builder_error",
        "message": f"The builder itself failed: {type(error).__name__}: {str(error)[:300]}",
        "suggestion": "Build again; if it fails the same way, send us the log of the tasks process.",
        "details": {},
    }


def plain(error: WorkflowError) -> dict[str, Any]:
    """The error as a build keeps it; its step has a field of its own."""
    details = {name: value for name, value in error.details.items() if name != "step"}
    return {"code": error.code, "message": error.message, "suggestion": error.suggestion, "details": details}
