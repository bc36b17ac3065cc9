"""Say to a person why no freeze exists: who asks what, where, and what would make it fit."""

from __future__ import annotations

from builds.locking.freeze import Conflict
from builds.locking.requirements import Asked
from controlplane.kernel.errors import Conflict as Refused
from controlplane.kernel.errors import Invalid, WorkflowError


def refused(conflict: Conflict, way_out: str) -> WorkflowError:
    """The error to raise; `way_out` is a constraint that was tried and makes it fit."""
    if len(conflict.sides) == 1:
        return _alone(conflict)
    sides = "; ".join(f"{_who(one)} asks {one.text}" for one in conflict.sides[:6])
    message = f"The Python packages cannot be installed together: {sides}." if sides else "The Python packages cannot be installed together."
    suggestion = (
        f"It fits with {way_out}, if the rest can live with that; else use another version of one of the packs."
        if way_out
        else "Use another version of one of the packs, or leave one out."
    )
    return Refused("requirements_conflict", message, suggestion, details=conflict.as_json() | {"way_out": way_out})


def _alone(conflict: Conflict) -> WorkflowError:
    """One requirement that nothing can meet: no conflict, but as final."""
    (side,) = conflict.sides
    said, details = conflict.said.lower(), conflict.as_json()
    if "wheel" in said or "building from source is disabled" in said:
        message = f"{_who(side)} asks {side.text}, which must be built from source; that would run its code here."
        return Invalid(
            "requirement_needs_building", message, "If you trust it, allow it with BUILD_SOURCE_BUILDS=1, or add a wheel to the index.", details=details
        )
    if "python version" in said:
        message = f"{_who(side)} asks {side.text}, which needs another Python than the image has."
        return Invalid("requirement_needs_other_python", message, "Set BUILD_PYTHON_VERSION and BUILD_BASE_IMAGE, or use another version.", details=details)
    if "was not found" in said:
        return Invalid(
            "requirement_unknown", f"{_who(side)} asks {side.text}, which the package index does not have.", "Check the name, or the index.", details=details
        )
    message = f"{_who(side)} asks {side.text}, and no version of that time fits."
    return Invalid("requirement_unavailable", message, "Use another version of it, or a newer ComfyUI.", details=details)


def _who(one: Asked) -> str:
    if one.asker == "comfyui":
        return "ComfyUI" if one.line else f"ComfyUI ({one.file})"
    if one.asker in ("agent", "person"):
        return {"agent": "the worker agent", "person": "your constraint"}[one.asker]
    return f"{one.asker[:120]} ({one.where})"
