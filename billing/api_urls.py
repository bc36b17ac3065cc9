"""Addresses of usage and limits under /v1/."""

from django.urls import path

from billing import api, webhooks_api

urlpatterns = [
    path("usage", api.Usage.as_view(), name="api-usage"),
    path("limits", api.Limits.as_view(), name="api-limits"),
    path("webhook-secret", webhooks_api.Secret.as_view(), name="api-webhook-secret"),
]
