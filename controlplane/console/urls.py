"""Addresses of the console, under /ops/."""

from __future__ import annotations

from django.urls import include, path

from controlplane.console import components, overview, search, session

app_name = "ops"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("login/", session.sign_in, name="login"),
    path("logout/", session.sign_out, name="logout"),
    path("search/", search.search, name="search"),
    path("_components/", components.components, name="components"),
    path("", include("controlplane.console.urls_work")),
]
