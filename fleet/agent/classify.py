"""Turn what ComfyUI says into a failure with a class, a code and a next step. Pure.

Only `platform` and `capacity` are retried by the control plane, so a class is a decision about money.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TRACEBACK_LINES = 12
TRACEBACK_CHARS = 4000
MESSAGE_CHARS = 1000

OUT_OF_MEMORY_TYPES = re.compile(r"(^|\.)(OutOfMemoryError|MemoryError|_ArrayMemoryError)$")
OUT_OF_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|unable to allocate|allocation on device"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|DefaultCPUAllocator: not enough memory",
    re.IGNORECASE,
)
# After one of these the CUDA context of the process is unusable: only a restart helps.
GPU_FAULT_WORDS = re.compile(r"CUDA error|device-side assert|illegal memory access|CUDA driver|no CUDA-capable device|GPU is lost|NVML", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in the words of the worker protocol."""

    code: str
    message: str
    failure_class: str
    suggestion: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    restart_engine: bool = False

    def body(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message[:MESSAGE_CHARS],
            "suggestion": self.suggestion,
            "class": self.failure_class,
            "details": dict(self.details),
        }


def platform(code: str, message: str, **details: Any) -> Failure:
    return Failure(code, message, "platform", "The job is tried again on another worker; nothing is charged for this attempt.", details)


def is_out_of_memory(exception_type: str, message: str) -> bool:
    return bool(OUT_OF_MEMORY_TYPES.search(exception_type) or OUT_OF_MEMORY_WORDS.search(message))


def validation(status: int, body: Any) -> Failure:
    """A refused /prompt."""
    if status >= 500 or not isinstance(body, dict):
        text = body if isinstance(body, str) else ""
        return platform("prompt_refused", f"ComfyUI answered {status} to the prompt.", status=status, body=text[:500])
    error = body.get("error") if isinstance(body.get("error"), dict) else {}
    kind = str((error or {}).get("type", "invalid_prompt"))
    nodes = _node_errors(body.get("node_errors"))
    said = _first_reason(nodes) or " ".join(str(part) for part in ((error or {}).get("message"), (error or {}).get("details")) if part)
    details = {"type": kind, "node_errors": nodes, **({"detail": str(error["details"])[:500]} if error and error.get("details") else {})}
    if kind == "prompt_no_outputs":
        return Failure("no_output_node", "The workflow has no output node.", "workflow", "Add a node that saves its result, such as SaveImage.", details)
    if "does not exist" in said and kind in ("invalid_prompt", "missing_node_type"):
        return Failure(
            "node_class_missing",
            said,
            "workflow",
            "Add the node pack that has this class to the version's dependencies and build again.",
            details,
        )
    return Failure("invalid_workflow", said or "ComfyUI refused the workflow.", "workflow", "Correct the named inputs and publish a new version.", details)


def partial(node_errors: Any) -> Failure:
    """A 200 with node_errors: some outputs would silently not run, so the job must not pass."""
    nodes = _node_errors(node_errors)
    outputs = sorted({str(o) for entry in nodes.values() for o in entry["dependent_outputs"]})
    named = ", ".join(outputs) or ", ".join(nodes)
    return Failure(
        "node_errors",
        f"Output node {named} cannot run: {_first_reason(nodes)}" if len(outputs) == 1 else f"Output nodes {named} cannot run: {_first_reason(nodes)}",
        "workflow",
        "Correct the named inputs, or remove the outputs that cannot run.",
        {"node_errors": nodes, "outputs": outputs},
    )


def execution_error(
    data: Mapping[str, Any],
    *,
    titles: Mapping[str, str] | None = None,
    input_nodes: Collection[str] = (),
    api_classes: Collection[str] = (),
) -> Failure:
    """An exception inside a node."""
    node, kind = str(data.get("node_id", "")), str(data.get("node_type", ""))
    exception = str(data.get("exception_type", ""))
    said = str(data.get("exception_message", "")).strip()
    details = {
        "node": node,
        "class_type": kind,
        "title": (titles or {}).get(node, kind),
        "exception_type": exception,
        "exception_message": said[:MESSAGE_CHARS],
        "traceback": _trimmed(data.get("traceback")),
    }
    where = f"{kind} (node {node})"
    if is_out_of_memory(exception, said):
        return Failure(
            "out_of_memory",
            f"{where} ran out of memory.",
            "capacity",
            "Ask for smaller images or batches, or move the workflow to a pool with more memory.",
            details,
        )
    if GPU_FAULT_WORDS.search(said):
        found = platform("gpu_fault", f"The GPU failed in {where}: {_line(said)}", **details)
        return replace(found, restart_engine=True)
    if kind in api_classes:
        return Failure(
            "external_api_failed",
            f"{where} calls a service outside, which failed: {_line(said)}",
            "external",
            "Check the service's status and your account with it, then try again.",
            details,
        )
    if node in input_nodes:
        return Failure(
            "input_unreadable",
            f"{where} could not read its input file: {_line(said)}",
            "customer_input",
            "Send a file of a supported type that opens in an ordinary viewer.",
            details,
        )
    return Failure(
        "node_failed",
        f"{where} failed: {exception}: {_line(said)}",
        "workflow",
        "Run the workflow with these inputs in ComfyUI and correct the named node.",
        details,
    )


def interrupted(data: Mapping[str, Any] | None = None) -> Failure:
    """An interrupt that the agent did not send."""
    return platform("run_interrupted", "ComfyUI was told to interrupt the job by somebody else.", node=str((data or {}).get("node_id", "")))


def engine_crashed(message: str, **details: Any) -> Failure:
    return platform("engine_crashed", message, **details)


def engine_stalled(stall_s: float, node: str | None) -> Failure:
    return platform("engine_stalled", f"ComfyUI showed no sign of life for {stall_s:g} s.", node=node, stall_s=stall_s)


def run_timeout(timeout_s: float, node: str | None) -> Failure:
    return Failure(
        "run_timeout",
        f"The run took longer than its limit of {timeout_s:g} s.",
        "workflow",
        "Ask for less work (fewer steps, a smaller size), or raise the workflow's time limit.",
        {"timeout_s": timeout_s, "node": node},
    )


def deadline_passed() -> Failure:
    return Failure("deadline_passed", "The job's deadline passed before it was done.", "capacity", "Allow more time, or use a higher priority.")


def no_outputs(reported: bool) -> Failure:
    return Failure(
        "no_outputs",
        "The workflow ran, but no node reported a result." if not reported else "The workflow ran, but its results hold no file and no text.",
        "workflow",
        "End the workflow in a node that saves its result, such as SaveImage.",
    )


def output_not_stored(name: str, reason: str) -> Failure:
    return platform("output_not_stored", f"The output {name} could not be stored: {reason}", output=name)


def output_too_large(name: str, limit_bytes: int) -> Failure:
    return Failure(
        "output_too_large",
        f"The outputs are larger than {limit_bytes} bytes (at {name}).",
        "workflow",
        "Save fewer or smaller files, or raise the workflow's output limit.",
        {"limit_bytes": limit_bytes, "output": name},
    )


def worker_stopped() -> Failure:
    return platform("worker_stopped", "The worker was told to stop at once.")


def _node_errors(raw: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for node, entry in (raw or {}).items() if isinstance(raw, dict) else ():
        errors = [
            {
                "type": e.get("type"),
                "message": e.get("message"),
                "details": str(e.get("details", ""))[:500],
                "input": (e.get("extra_info") or {}).get("input_name"),
                "received": _short((e.get("extra_info") or {}).get("received_value")),
            }
            for e in entry.get("errors", [])
            if isinstance(e, dict)
        ]
        found[str(node)] = {
            "class_type": entry.get("class_type"),
            "errors": errors,
            "dependent_outputs": [str(o) for o in entry.get("dependent_outputs", [])],
        }
    return found


def _first_reason(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    for node, entry in nodes.items():
        for error in entry["errors"]:
            return f"{entry['class_type']} (node {node}): {error['message']}" + (f" ({error['details']})" if error["details"] else "")
    return ""


def _trimmed(traceback: Any) -> list[str]:
    lines = [str(part).rstrip() for part in traceback] if isinstance(traceback, list) else []
    kept, size = [], 0
    # The end of a traceback is the part that names the cause.
    for line in reversed(lines[-TRACEBACK_LINES:]):
        size += len(line)
        if size > TRACEBACK_CHARS:
            break
        kept.append(line)
    return kept[::-1]


def _line(text: str) -> str:
    return text.splitlines()[0][:300] if text else "no message"


def _short(value: Any) -> Any:
    return value if isinstance(value, int | float | bool | None) else str(value)[:200]
