"""One freeze for everything that shares an interpreter, resolved before anything is built.

Two steps, so that a pack cannot move the ground: ComfyUI's own needs are resolved as of its commit's date; from that,
torch, CUDA and numpy become constraints and the rest preferences when the union with all packs is resolved, as of the
newest commit. Resolving is for the lock's platform only, which is quicker and shorter than a universal one. Nothing
of any package is run unless source builds are allowed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uv
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builds.findings import WARNING, Finding, finding
from builds.locking import freeze, indexes, refusals
from builds.locking.freeze import PROTECTED, Conflict, Pinned
from builds.locking.requirements import Asked
from builds.locking.running import TooMuch, TooSlow, run
from builds.locking.sources import Sources, Target
from controlplane.kernel.errors import Invalid, Unavailable

_PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
_UNDATED = re.compile(r"`([^`]+)` is missing an upload date")
_NONE_OF = re.compile(r"no versions? of ([A-Za-z0-9][A-Za-z0-9._-]*?)(?=[<>=!~,\[\s]|\.\s|\.?$)")
_ROUNDS = 12
RULES = 2  # raised when the same question gets another answer by a change here
_DEAF = ("failed to fetch", "error sending request", "connection", "network was disabled", "timed out", "dns error", "client error", "could not connect")


@dataclass
class Resolved:
    """The freeze, what bounded it, and what there is to say about it."""

    packages: list[dict[str, Any]]
    constraints: list[str]
    as_of: datetime | None
    torch: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def findings_of_today(self) -> bool:
        """Whether a part of it is bound to no time."""
        return any(one["code"] == "index_without_dates" for one in self.findings)


@dataclass(frozen=True)
class Question:
    """What to resolve: who asks what, the dates of ComfyUI and of the newest part, and what the image shall be."""

    core: tuple[Asked, ...]
    packs: tuple[Asked, ...]
    core_at: datetime
    newest_at: datetime
    target: Target


class _NoSolution(Exception):
    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict.said)
        self.conflict = conflict


def resolve(question: Question, *, sources: Sources) -> Resolved:
    """The freeze of the union. Raises Conflict `requirements_conflict` with both sides, Unavailable `index_unreachable`, `resolver_too_slow`."""
    own = [_own(line) for line in question.target.constraints]
    runner = _Resolver(question, sources)
    # Whoever names an exact version means it, whenever it was uploaded.
    runner.undated |= {one.name for one in own if "==" in one.text}
    try:
        base = runner.compile(question.core, constraints=own, as_of=question.core_at)
    except _NoSolution as trouble:
        raise refusals.refused(trouble.conflict, "") from trouble
    protected = _protected(base)
    result = base
    if question.packs:
        try:
            result = _union(question, runner, own, base)
        except _NoSolution as trouble:
            raise refusals.refused(trouble.conflict, _way_out(trouble.conflict, runner, question, own)) from trouble
    packages = freeze.packages(result, runner.askers)
    torch = next((one["version"] for one in packages if one["name"] == "torch"), "")
    constraints = sorted({one.text for one in [*own, *protected]})
    bounded = None if runner.unbounded else (question.newest_at if question.packs else question.core_at)
    return Resolved(packages, constraints, bounded, torch, [*runner.findings, *_moved(base, result), *_left_out(question)])


def _union(question: Question, runner: _Resolver, own: list[Asked], base: list[Pinned]) -> list[Pinned]:
    """ComfyUI's freeze with what the packs add. Of what is not protected, only what the packs cannot live with moves.

    uv's own preferences (an output file that is there) are not used: with several indexes, some without upload times,
    they lead to older versions of packages that nobody asked to move.
    """
    together = (*question.core, *question.packs)
    held = {one.name: one for one in _pins(base)}
    for _ in range(_ROUNDS):
        try:
            return runner.compile(together, constraints=[*own, *held.values()], as_of=question.newest_at)
        except _NoSolution as trouble:
            free = {name for name in trouble.conflict.packages if name in held and not PROTECTED.fullmatch(name)}
            if not free:
                raise
            held = {name: one for name, one in held.items() if name not in free}
    return runner.compile(together, constraints=[*own, *_protected(base)], as_of=question.newest_at)


class _Resolver:
    """Runs of uv for one question; remembers which packages the index gives no dates for."""

    def __init__(self, question: Question, sources: Sources) -> None:
        self.sources, self.target = sources, question.target
        self.askers: dict[str, str] = {}
        self.undated: set[str] = set()
        self.loosened: set[str] = set()
        self.unbounded = False
        self.findings: list[Finding] = []

    def compile(self, asked: Iterable[Asked], *, constraints: Iterable[Asked], as_of: datetime) -> list[Pinned]:
        """One freeze; tries without a date for packages that have none, and says so."""
        asked, constraints = list(asked), list(constraints)
        if not asked:
            return []
        with tempfile.TemporaryDirectory(prefix="comfyplane-lock-") as made:
            folder = Path(made)
            inputs = self._write(folder, asked, constraints)
            for _ in range(4):
                code, said = self._run(folder, inputs, None if self.unbounded else as_of)
                if code == 0:
                    return freeze.read((folder / "freeze.txt").read_text())
                undated = {_name(re.split(r"-\d", file)[0]) for file in _UNDATED.findall(said)} - self.undated
                lacking = undated & {canonicalize_name(name) for name in _NONE_OF.findall(said.rpartition("error:")[2])}
                if self.unbounded or not lacking:
                    break
                self._loosen(lacking)
            else:
                self._unbind()
                code, said = self._run(folder, inputs, None)
                if code == 0:
                    return freeze.read((folder / "freeze.txt").read_text())
        raise self._trouble(said, asked, constraints)

    def _write(self, folder: Path, asked: list[Asked], constraints: list[Asked]) -> list[str]:
        by_asker: dict[str, list[Asked]] = {}
        for one in asked:
            by_asker.setdefault(one.asker, []).append(one)
        files = []
        for number, asker in enumerate(sorted(by_asker)):
            file = f"asker-{number:03}.in"
            self.askers[file] = asker
            (folder / file).write_text("".join(f"{one.text}\n" for one in by_asker[asker]))
            files.append(file)
        (folder / "constraints.txt").write_text("".join(f"{one.text}\n" for one in constraints))
        (folder / "left-out.txt").write_text("".join(f"{name}\n" for name in self.target.left_out))
        return files

    def _run(self, folder: Path, inputs: list[str], as_of: datetime | None) -> tuple[int, str]:
        argv = [uv.find_uv_bin(), "pip", "compile", *inputs, "--constraints", "constraints.txt", "--excludes", "left-out.txt", "-o", "freeze.txt"]
        argv += ["--python", sys.executable, "--python-version", self.target.python, "--python-platform", _platform(self.target.arch)]
        argv += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--annotation-style", "split", "--no-strip-markers"]
        argv += ["--no-progress", "--color", "never", *indexes.arguments(self.sources)]
        if not self.sources.source_builds:
            argv.append("--no-build")
        if self.target.torch_backend:
            argv += ["--torch-backend", self.target.torch_backend]
        if as_of is not None:
            argv += ["--exclude-newer", as_of.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
            argv += [part for name in sorted(self.undated) for part in ("--exclude-newer-package", f"{name}=false")]
        try:
            said = run(argv, timeout_s=self.sources.timeout_s, cwd=folder, env={"UV_PYTHON_DOWNLOADS": "never"}, max_output=8_000_000)
        except TooSlow as error:
            message = f"Resolving the Python packages took longer than {self.sources.timeout_s:g} s."
            raise Unavailable("resolver_too_slow", message, "Try again; if it stays slow, pin the packs' packages with constraints.") from error
        except TooMuch as error:
            raise Invalid("freeze_too_large", "The resolved freeze is too large.", "Use fewer packs in one image.") from error
        if as_of is not None and said.code == 0 and (folder / "freeze.txt").stat().st_size > 8_000_000:
            raise Invalid("freeze_too_large", "The resolved freeze is too large.", "Use fewer packs in one image.")
        return said.code, said.err

    def _loosen(self, names: set[str]) -> None:
        self.undated |= names
        self.loosened |= names
        listed = ", ".join(sorted(self.loosened)[:20])
        message = f"The package index tells no upload times for {listed}; their newest fitting versions are taken."
        self.findings = [one for one in self.findings if one["code"] != "index_without_dates"]
        self.findings.append(finding(WARNING, "index_without_dates", message, "Use an index that tells them, or pin these packages with constraints."))

    def _unbind(self) -> None:
        self.unbounded = True
        message = "The package index tells no upload times, so the freeze is of today, not of the commits' time."
        self.findings = [one for one in self.findings if one["code"] != "index_without_dates"]
        self.findings.append(finding(WARNING, "freeze_unbounded", message, "Check that ComfyUI starts with it, or use an index that tells upload times."))

    def _trouble(self, said: str, asked: list[Asked], constraints: list[Asked]) -> Exception:
        error = said.rpartition("error:")[2]
        lowered = error.lower()
        if "no solution found" not in lowered and any(word in lowered for word in _DEAF):
            details = {"resolver": error.strip()[-800:]}
            return Unavailable(
                "index_unreachable", "The package index does not answer.", "Try again later, or set BUILD_PACKAGE_INDEX to one that is near.", details=details
            )
        if "no solution found" not in lowered:
            return Invalid(
                "resolver_failed", "The resolver could not work with the requirements.", "See the details.", details={"resolver": error.strip()[-800:]}
            )
        return _NoSolution(freeze.conflict(re.split(r"\n\s*\n?hint:", error)[0], asked, constraints))


def _pins(base: Iterable[Pinned]) -> list[Asked]:
    return [Asked("comfyui", "its own freeze", 0, one.name, f"{one.name}=={one.version}") for one in base if one.version]


def _protected(base: Iterable[Pinned]) -> list[Asked]:
    return [one for one in _pins(base) if PROTECTED.fullmatch(one.name)]


def _way_out(conflict: Conflict, runner: _Resolver, question: Question, own: list[Asked]) -> str:
    """The constraint that makes the whole fit, tried for real; "" when there is none so simple."""
    held = {name for name in conflict.packages if PROTECTED.fullmatch(name)}
    tries = [one for one in conflict.sides if one.name in held and one.asker not in freeze.OWN_ASKERS and "@" not in one.text]
    if not tries:
        return ""
    extra = [*own, *(Asked("person", "constraints", 0, one.name, one.text.split(";")[0].strip()) for one in tries)]
    try:
        base = runner.compile(question.core, constraints=extra, as_of=question.core_at)
        _union(question, runner, extra, base)
    except (_NoSolution, Invalid, Unavailable):
        return ""
    return " ".join(f"--constraint '{line}'" for line in sorted({one.text for one in extra[len(own) :]}))


def _moved(base: Iterable[Pinned], result: Iterable[Pinned]) -> list[Finding]:
    """Packages of ComfyUI that the packs made another version of."""
    after = {one.name: one.version for one in result}
    moved = [f"{one.name} {one.version} → {after[one.name]}" for one in base if after.get(one.name, one.version) != one.version]
    if not moved:
        return []
    message = f"The packs change the version of packages that ComfyUI uses: {', '.join(moved[:20])}."
    return [finding(WARNING, "packages_moved", message, "They satisfy ComfyUI's own requirements; the smoke run shows whether it works.")]


def _left_out(question: Question) -> list[Finding]:
    names = sorted({_name(name) for name in question.target.left_out} & {one.name for one in (*question.core, *question.packs)})
    if not names:
        return []
    message = f"Left out of the freeze by the settings, though asked for: {', '.join(names)[:600]}."
    return [finding(WARNING, "packages_left_out", message, "The base image must bring them, or what needs them fails to import.")]


def _own(line: str) -> Asked:
    try:
        parsed = Requirement(line)
    except InvalidRequirement as error:
        raise Invalid("constraint_malformed", f"{line[:120]!r} is no constraint.", "Write it like numpy<2 or torch==2.8.0.") from error
    if parsed.url or parsed.extras:
        raise Invalid("constraint_malformed", f"{line[:120]!r} names an address or extras; a constraint is a name and a version.", "Write it like numpy<2.")
    return Asked("person", "constraints", 0, canonicalize_name(parsed.name), str(parsed))


def _platform(arch: str) -> str:
    if arch not in _PLATFORMS:
        raise Invalid("platform_unknown", f"There is no platform linux/{arch[:20]}.", f"Choose {' or '.join(_PLATFORMS)}.")
    return _PLATFORMS[arch]


def _name(line: str) -> str:
    return canonicalize_name(re.split(r"[\s<>=!~;\[@(]", line.strip(), maxsplit=1)[0])
