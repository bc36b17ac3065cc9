from django.apps import AppConfig


class BuildsConfig(AppConfig):
    name = "builds"
    label = "builds"
    verbose_name = "Workflows"
    default_auto_field = "django.db.models.BigAutoField"
