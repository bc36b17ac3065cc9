from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    label = "controlplane"
    verbose_name = "Comfyplane"
    default_auto_field = "django.db.models.BigAutoField"
