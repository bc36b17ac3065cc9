"""/ops/search/: one box for every object."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from controlplane.console import pages, roles


@roles.staff
def search(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()[:200]
    return pages.page(request, "console/search.html", {"search_text": text}, title="Search", active="")
