"""Pools made before there were policies keep the rule they had, with its numbers as knobs."""

from django.db import migrations


def forwards(apps, schema_editor):
    for pool in apps.get_model("fleet", "Pool").objects.all():
        pool.policy = "threshold"
        pool.knobs = {"queue_per_worker": pool.queue_per_worker, "idle_s": pool.idle_s}
        pool.save(update_fields=["policy", "knobs"])
    Worker = apps.get_model("fleet", "Worker")
    for pool in apps.get_model("fleet", "Pool").objects.all():
        Worker.objects.filter(pool=pool).update(price_per_hour_microusd=pool.price_per_hour_microusd, gpu=pool.gpu)


def backwards(apps, schema_editor):
    for pool in apps.get_model("fleet", "Pool").objects.filter(policy="threshold"):
        pool.queue_per_worker = pool.knobs.get("queue_per_worker", 0.8)
        pool.idle_s = pool.knobs.get("idle_s", 300)
        pool.save(update_fields=["queue_per_worker", "idle_s"])


class Migration(migrations.Migration):
    dependencies = [("fleet", "0007_sizing_and_planning")]
    operations = [migrations.RunPython(forwards, backwards)]
