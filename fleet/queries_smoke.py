"""Reads of smoke runs: what may be due, and the matrix of every endpoint with its last result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import Max, OuterRef, Subquery

from builds.models import Build, Channel, Version, Workflow
from fleet.models import SmokeRun
from fleet.smoke_rule import Subject

_LIGHT = ("id", "number", "workflow_id", "runnable", "created_at")


def subjects() -> list[Subject]:
    """Every version somebody can reach. Five queries, whatever their number."""
    newest, moved, production = _reachable()
    ids = set(newest) | set(moved)
    runnable = dict(Version.objects.filter(id__in=ids).values_list("id", "runnable"))
    plain = SmokeRun.objects.filter(version__in=ids, build__isnull=True).order_by()
    last = dict(plain.values_list("version_id").annotate(at=Max("requested_at")))
    busy = set(plain.filter(state__in=SmokeRun.OPEN).values_list("version_id", flat=True))
    return [
        Subject(
            version_id=version,
            runnable=runnable.get(version, False),
            newest=version in newest,
            production=version in production,
            moved_at=moved.get(version),
            last_at=last.get(version),
            open=version in busy,
        )
        for version in sorted(ids)
    ]


def untested_builds(*, since: datetime) -> list[Build]:
    """Images that were built and never tried."""
    found = Build.objects.filter(state=Build.State.SUCCEEDED, finished_at__gte=since, smoke_runs__isnull=True)
    return list(found.select_related("version__workflow").defer("version__graph", "version__ui_graph").order_by("finished_at"))


def _reachable() -> tuple[dict[UUID, UUID], dict[UUID, datetime], set[UUID]]:
    """Newest version → workflow, version a channel points at → when it was moved there, versions in production."""
    top = Version.objects.filter(workflow=OuterRef("pk")).order_by("-number").values("id")[:1]
    rows = Workflow.objects.filter(archived_at__isnull=True).annotate(newest=Subquery(top)).values_list("id", "newest")
    newest = {version: workflow for workflow, version in rows if version is not None}
    moved: dict[UUID, datetime] = {}
    production: set[UUID] = set()
    for version, name, at in Channel.objects.filter(workflow__archived_at__isnull=True).values_list("version_id", "name", "moved_at"):
        moved[version] = max(at, moved.get(version, at))
        if name == Channel.Name.PRODUCTION:
            production.add(version)
    return newest, moved, production


@dataclass(slots=True)
class Cell:
    """One endpoint: a version somebody can reach, and its last results."""

    version: Version
    channels: list[str] = field(default_factory=list)
    newest: bool = False
    ended: SmokeRun | None = None
    open: SmokeRun | None = None
    image: SmokeRun | None = None
    """The last ended run on a built image."""

    @property
    def state(self) -> str:
        """passed, failed, never, or draft for what cannot run."""
        if self.ended is not None:
            return self.ended.state
        return "never" if self.version.runnable else "draft"

    @property
    def failing(self) -> bool:
        return self.state == SmokeRun.State.FAILED or (self.image is not None and self.image.state == SmokeRun.State.FAILED)


@dataclass(slots=True)
class Row:
    """A workflow with its endpoints, newest version first."""

    workflow: Workflow
    cells: list[Cell] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All of it, with the figures of its headline."""

    rows: list[Row]

    @property
    def cells(self) -> list[Cell]:
        return [cell for row in self.rows for cell in row.cells]

    @property
    def endpoints(self) -> int:
        """What can be called: drafts cannot."""
        return sum(cell.version.runnable for cell in self.cells)

    @property
    def covered(self) -> int:
        return sum(cell.version.runnable and cell.ended is not None for cell in self.cells)

    @property
    def coverage(self) -> float | None:
        return self.covered / self.endpoints if self.endpoints else None

    @property
    def failing(self) -> int:
        return sum(cell.failing for cell in self.cells)


def matrix(*, slug: str = "") -> Matrix:
    """Every workflow × (newest, each channel's version) with its last results; the failing ones first."""
    workflows = Workflow.objects.filter(archived_at__isnull=True).defer("capabilities")
    if slug:
        workflows = workflows.filter(slug=slug)
    rows = {workflow.id: Row(workflow) for workflow in workflows}
    newest, moved, _ = _reachable()
    names: dict[UUID, list[str]] = defaultdict(list)
    order = list(Channel.Name.values)
    for version_id, name in Channel.objects.filter(workflow__in=list(rows)).values_list("version_id", "name"):
        names[version_id].append(name)
    versions = [v for v in Version.objects.filter(id__in=set(newest) | set(moved)).only(*_LIGHT) if v.workflow_id in rows]
    ended, image, running = _last([v.id for v in versions])
    for version in sorted(versions, key=lambda v: -v.number):
        version.workflow = rows[version.workflow_id].workflow
        rows[version.workflow_id].cells.append(
            Cell(
                version=version,
                channels=sorted(names[version.id], key=order.index, reverse=True),
                newest=version.id in newest,
                ended=ended.get(version.id),
                open=running.get(version.id),
                image=image.get(version.id),
            )
        )
    found = [row for row in rows.values() if row.cells]
    return Matrix(sorted(found, key=lambda r: (not any(c.failing for c in r.cells), r.workflow.slug)))


def _last(versions: Iterable[UUID]) -> tuple[dict[UUID, SmokeRun], dict[UUID, SmokeRun], dict[UUID, SmokeRun]]:
    """By version: the last ended run through the queue, the last ended one on an image, and one that is open."""
    ids = list(versions)
    over = SmokeRun.objects.filter(version__in=ids, finished_at__isnull=False).order_by()
    picked = SmokeRun.objects.filter(version=OuterRef("pk"), finished_at__isnull=False).order_by("-requested_at", "-id").values("id")
    queued, contained = Subquery(picked.filter(build__isnull=True)[:1]), Subquery(picked.filter(build__isnull=False)[:1])
    marked = Version.objects.filter(id__in=ids).annotate(plain=queued, built=contained)
    wanted = [run for pair in marked.values_list("plain", "built") for run in pair if run is not None]
    plain: dict[UUID, SmokeRun] = {}
    built: dict[UUID, SmokeRun] = {}
    for run in over.filter(id__in=wanted).select_related("build", "job"):
        (plain if run.build_id is None else built)[run.version_id] = run
    running = {run.version_id: run for run in SmokeRun.objects.filter(version__in=ids, state__in=SmokeRun.OPEN).order_by("-requested_at")}
    return plain, built, running
