"""Find the last runs of a pool's jobs by one range of one index."""

from django.db import migrations, models

from controlplane.kernel.indexing import AddIndexLive


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('billing', '0002_usage_append_only'),
        ('builds', '0010_main_branches'),
        ('fleet', '0015_attempts_by_end'),
    ]

    operations = [
        AddIndexLive(
            model_name='job',
            index=models.Index(condition=models.Q(('finished_at__isnull', False), ('worker__isnull', False)), fields=['pool', 'finished_at'], name='job_last_runs'),
        ),
    ]
