"""Every address of the web process. Composition only."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("v1/", include("controlplane.api.urls")),
    path("worker/v1/", include("fleet.worker_urls")),
    path("admin/", admin.site.urls),
    path("ops/", include("controlplane.console.urls")),
]
