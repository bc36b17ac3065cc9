"""The roof: composes the rooms, and sees that the roles of the console exist in every database."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


def _ensure_roles(**_: Any) -> None:
    from controlplane.console import roles

    roles.ensure()


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    label = "controlplane"
    verbose_name = "Comfyplane"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(_ensure_roles, sender=apps.get_app_config("auth"), dispatch_uid="console_roles")
