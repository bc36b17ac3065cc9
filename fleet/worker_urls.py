"""Addresses of the worker protocol."""

from django.urls import path

from fleet import worker_api as api

urlpatterns = [
    path("register", api.register, name="worker-register"),
    path("claim", api.claim, name="worker-claim"),
    path("heartbeat", api.heartbeat, name="worker-heartbeat"),
    path("leave", api.leave, name="worker-leave"),
    path("jobs/<uuid:job>/attempts/<int:attempt>/files/<str:sha256>", api.input_file, name="worker-file"),
    path("jobs/<uuid:job>/attempts/<int:attempt>/outputs/<int:index>", api.output, name="worker-output"),
    path("jobs/<uuid:job>/attempts/<int:attempt>/complete", api.complete, name="worker-complete"),
]
