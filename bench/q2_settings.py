"""Settings of the django-q2 cluster that queue_cycle.py measures: two workers, no saved results, quick polling."""

from controlplane.settings import *  # noqa: F403

Q_CLUSTER = {"name": "comfyplane", "orm": "default", "workers": 2, "bulk": 1, "queue_limit": 4, "timeout": 60, "retry": 120, "save_limit": 0, "poll": 0.2}
