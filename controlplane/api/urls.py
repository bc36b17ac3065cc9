"""Every address under /v1/. Composition only."""

from django.urls import include, path

urlpatterns = [
    path("", include("fleet.api.urls")),
]
