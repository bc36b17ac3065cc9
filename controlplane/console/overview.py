"""/ops/: is anything broken and for whom, what needs someone first, what changed."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from controlplane.console import pages, ranges, roles


@roles.staff
def overview(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    return pages.page(request, "console/overview.html", {}, title="Overview", active="overview", span=ranges.parse(request.GET, now=now), now=now)
