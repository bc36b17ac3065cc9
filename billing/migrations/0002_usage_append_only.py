from django.db import migrations

from controlplane.kernel.appendonly import AppendOnly


class Migration(migrations.Migration):
    """The ledger and the terms it was written under never change."""

    dependencies = [("billing", "0001_initial")]
    operations = [
        AppendOnly("billing_usageentry"),
        AppendOnly("billing_planrevision"),
    ]
