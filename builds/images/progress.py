"""What BuildKit's plain progress says, line by line: steps, whether they were cached, how long they took, what they printed.

Pure. The text of a step's own output is other people's: it is only ever carried, never taken for a message of BuildKit,
because BuildKit puts the step's number and a time before every such line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_TEXT = 2000
MAX_NAME = 300
TAIL = 30
_LINE = re.compile(r"#(\d{1,6}) (.*)", re.DOTALL)
_OUTPUT = re.compile(r"(\d+\.\d+) (.*)", re.DOTALL)
_DONE = re.compile(r"DONE (\d+(?:\.\d+)?)s")
_STAGED = re.compile(r"\[(?:([A-Za-z0-9_.-]+) )?(\d+)/(\d+)\] (.*)", re.DOTALL)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MOUNT = re.compile(r" --mount=\S+")
_WHY = re.compile(r"exit code: (\d+)")


@dataclass
class Step:
    """One step. `number` is BuildKit's; `position` counts from 1 in the order in which they were first named."""

    number: int
    position: int
    name: str
    stage: str = ""
    index: int = 0
    state: str = "running"
    seconds: float | None = None
    error: str = ""
    tail: list[str] = field(default_factory=list)

    @property
    def instruction(self) -> str:
        """RUN, COPY, FROM …; empty for BuildKit's own steps."""
        found = _STAGED.fullmatch(self.name)
        return found[4].split(" ", 1)[0] if found else ""


@dataclass(frozen=True)
class Said:
    """One line of the log. `step` is a position, None for lines that belong to no step."""

    text: str
    step: int | None = None


class Progress:
    """Feed it lines; read `steps`, and what each call returns for the log."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self.trailing: list[str] = []

    def feed(self, raw: str) -> Said | None:
        """Take one line. Returns what belongs in the log: headers, output and results; None for what says nothing."""
        line = clean(raw)
        found = _LINE.fullmatch(line)
        if found is None:
            return self._loose(line)
        number, rest = int(found[1]), found[2]
        step = self.steps.get(number)
        if step is None:
            if _DIGEST.fullmatch(rest) or rest in ("...", "CACHED", "CANCELED") or _DONE.fullmatch(rest) or _OUTPUT.fullmatch(rest):
                return None  # of a step that was never named
            return self._named(number, rest)
        if output := _OUTPUT.fullmatch(rest):
            return self._printed(step, output[2])
        if _DIGEST.fullmatch(rest) or rest in ("", "...") or shown(rest) == step.name:
            return None
        if done := _DONE.fullmatch(rest):
            return self._ended(step, "done", float(done[1]), rest)
        if rest == "CACHED":
            return self._ended(step, "cached", 0.0, rest)
        if rest == "CANCELED":
            return self._ended(step, "canceled", None, rest)
        if rest.startswith("ERROR"):
            step.error = rest.removeprefix("ERROR").lstrip(": ")
            return self._ended(step, "failed", None, rest)
        return self._printed(step, rest)

    @property
    def failed(self) -> Step | None:
        """The step that ended the build, if one did: the first that failed."""
        return next((step for step in self.steps.values() if step.state == "failed"), None)

    def _named(self, number: int, name: str) -> Said:
        step = Step(number, len(self.steps) + 1, shown(name))
        if staged := _STAGED.fullmatch(name):
            step.stage, step.index = (staged[1] or "")[:60], int(staged[2])
        self.steps[number] = step
        return Said(step.name, step.position)

    def _printed(self, step: Step, text: str) -> Said:
        step.tail.append(text[:MAX_TEXT])
        del step.tail[:-TAIL]
        return Said(text[:MAX_TEXT], step.position)

    def _ended(self, step: Step, state: str, seconds: float | None, text: str) -> Said:
        if step.state != "failed":
            step.state = state
            # A step with several parts says DONE more than once: the longest counts.
            step.seconds = seconds if seconds is None else max(seconds, step.seconds or 0.0)
        return Said(text[:MAX_TEXT], step.position)

    def _loose(self, line: str) -> Said | None:
        if not line.strip() or set(line) == {"-"}:
            return None
        self.trailing.append(line[:MAX_TEXT])
        del self.trailing[:-TAIL]
        return Said(line[:MAX_TEXT])


def shown(name: str) -> str:
    """A step's name for people: without mounts and the white space of folded lines."""
    return " ".join(_MOUNT.sub("", name).split())[:MAX_NAME]


def clean(raw: str) -> str:
    """The line without colours, carriage returns and other control characters; what a terminal would leave standing of it."""
    text = _ANSI.sub("", raw.rstrip("\r\n"))
    text = text.rpartition("\r")[2] or text.replace("\r", "")
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def exit_code(error: str) -> int | None:
    """The exit code in a step's error, if it names one."""
    found = _WHY.findall(error)
    return int(found[-1]) if found else None
