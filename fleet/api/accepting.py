"""`Accept` on a finished job: a caller may ask for the output itself in place of the job that made it."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.models import Output


def ranges(accept: str) -> list[str]:
    """Media ranges of an Accept header, the most wanted first. What cannot be read is left out."""
    found: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept[:2000].lower().split(",")):
        name, *params = (part.strip() for part in item.split(";"))
        weight = next((p[2:].strip() for p in params if p.startswith("q=")), "1")
        try:
            q = float(weight) if len(weight) < 8 else 0.0
        except ValueError:
            q = 0.0
        if 0 < q <= 1 and name.count("/") == 1:
            found.append((-q, place, name))
    return [name for _, _, name in sorted(found)]


def wants_bytes(accept: str) -> bool:
    """Whether something other than the job's JSON is wanted most."""
    first = next(iter(ranges(accept)), "*/*")
    return first not in ("*/*", "application/*", "application/json", "text/event-stream")


def choose(accept: str, outputs: Iterable[Output]) -> Output | None:
    """The first output that fits what is wanted most; None when JSON is wanted before any of them, or none fits."""
    listed = list(outputs)
    for wanted in ranges(accept):
        if wanted in ("*/*", "application/*", "application/json"):
            return None
        for item in listed:
            if wanted in (item.media_type, "application/octet-stream") or (wanted.endswith("/*") and item.media_type.startswith(wanted[:-1])):
                return item
    return None
