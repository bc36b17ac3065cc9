from django.db import migrations

MAIN = "main"


def give_main(apps, schema_editor):
    """Every workflow with versions gets a main branch whose head is its newest version."""
    Version = apps.get_model("builds", "Version")
    Branch = apps.get_model("builds", "Branch")
    BranchMove = apps.get_model("builds", "BranchMove")
    have = set(Branch.objects.filter(name=MAIN).values_list("workflow_id", flat=True))
    newest = {}
    for workflow, pk, author, at in Version.objects.order_by("number").values_list("workflow_id", "id", "author", "created_at").iterator():
        newest[workflow] = (pk, author, at)
    for workflow, (pk, author, at) in newest.items():
        if workflow not in have:
            branch = Branch.objects.create(workflow_id=workflow, name=MAIN, head_id=pk, created_at=at, created_by=author, moved_at=at)
            BranchMove.objects.create(branch=branch, before=None, after_id=pk, reason="create", message="Made for the versions that were there", by=author, at=at)


class Migration(migrations.Migration):
    dependencies = [("builds", "0009_merge_parent_frozen")]

    operations = [migrations.RunPython(give_main, migrations.RunPython.noop, elidable=True)]
