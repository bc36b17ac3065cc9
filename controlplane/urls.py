"""Every address of the web process. Composition only."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from controlplane.api import metrics
from controlplane.kernel import probes

urlpatterns = [
    path("", RedirectView.as_view(url="/ops/")),
    path("v1/", include("controlplane.api.urls")),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", metrics.view, name="metrics"),
    path("worker/v1/", include("fleet.worker_urls")),
    path("admin/", admin.site.urls),
    path("ops/api/", include("controlplane.console.scripting")),
    path("ops/api/", include("controlplane.console.smoke_api")),
    path("ops/api/", include("controlplane.console.emergency_api")),
    path("ops/api/", include("controlplane.console.versions_api")),
    path("ops/api/", include("controlplane.console.dependencies_api")),
    path("ops/api/", include("controlplane.console.lock_api")),
    path("ops/api/", include("controlplane.console.build_api")),
    path("ops/api/", include("controlplane.console.fleet_api")),
    path("ops/api/", include("controlplane.console.offers_api")),
    path("ops/api/", include("controlplane.console.planning_api")),
    path("ops/", include("controlplane.console.urls")),
]
