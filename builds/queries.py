"""Reads across workflows, versions and channels, for pages and the API."""

from __future__ import annotations

from django.db.models import Prefetch, QuerySet

from builds.models import Channel, Version, Workflow
from controlplane.kernel.errors import Gone, NotFound

_HEAVY = ("graph", "ui_graph", "lock")


def living() -> QuerySet[Workflow]:
    """Workflows that are not archived, with their channels and the versions these point at, without the graphs."""
    versions = Version.objects.defer(*_HEAVY)
    channels = Channel.objects.prefetch_related(Prefetch("version", queryset=versions))
    return Workflow.objects.filter(archived_at=None).prefetch_related(Prefetch("channels", queryset=channels))


def published() -> QuerySet[Workflow]:
    """Living workflows that customers can call."""
    return living().filter(channels__name=Channel.Name.PRODUCTION)


def workflow(slug: str) -> Workflow:
    """The living workflow `slug`, or NotFound or Gone."""
    found = Workflow.objects.filter(slug=slug).prefetch_related("channels").first()
    if found is None:
        raise NotFound("unknown_workflow", f"There is no workflow called {slug[:80]}.", "List them with GET /v1/workflows.")
    if found.archived_at is not None:
        raise Gone("workflow_archived", f"{found.name} is no longer offered.", "List what is with GET /v1/workflows.")
    return found


def serving(workflow: Workflow, channel: str = Channel.Name.PRODUCTION) -> Version | None:
    """The version `channel` points at."""
    return Version.objects.filter(channels__workflow=workflow, channels__name=channel).first()


def version(workflow: Workflow, wanted: str | int | None = None) -> Version:
    """A version by number, by channel name or by the start of its hash; without `wanted` the one in production."""
    text = str(wanted if wanted is not None else Channel.Name.PRODUCTION).strip().lower()
    found: Version | None = None
    if text in Channel.Name.values:
        found = serving(workflow, text)
    elif text.removeprefix("v").isdecimal() and len(text) <= 9:
        # Not through the workflow, whose versions may be there already without their graphs.
        found = Version.objects.filter(workflow=workflow, number=int(text.removeprefix("v"))).first()
    elif 8 <= len(text) <= 64:
        matches = list(Version.objects.filter(workflow=workflow, sha256__startswith=text)[:2])
        found = matches[0] if len(matches) == 1 else None
    if found is None:
        raise NotFound("unknown_version", f"{workflow.slug} has no version {text[:70]}.", "Name a number, a channel, or at least 8 characters of the hash.")
    return found


def latest(workflow: Workflow) -> Version | None:
    """The newest version, whatever its state."""
    return workflow.versions.order_by("-number").first()
