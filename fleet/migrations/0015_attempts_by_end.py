"""Find the attempts that reach into an hour by their end, however long ago they began."""

from django.db import migrations, models

from controlplane.kernel.indexing import AddIndexLive


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('fleet', '0014_pool_days'),
    ]

    operations = [
        AddIndexLive(
            model_name='attempt',
            index=models.Index(condition=models.Q(('ended_at__isnull', False)), fields=['ended_at'], name='attempt_by_end'),
        ),
    ]
