from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from controlplane.kernel import audit, blobs, loops, outbox
from controlplane.kernel.models import AuditEntry, OutboxEntry

pytestmark = pytest.mark.django_db
MODELS = ["auditentry", "audithead", "looplease", "blob", "outboxentry"]


@pytest.fixture
def something(now, tmp_path, settings) -> None:
    import io

    audit.record(actor="a", action="b", object_type="c", object_id="d", reason="<script>alert(1)</script>", now=now)
    loops.take(loops.Loop("scale", 1.0, lambda tick: ""), holder="a", now=now)
    blobs.put(io.BytesIO(b"x"), media_type="x/y", max_bytes=1, now=now)
    outbox.put(topic="webhook", key="k", payload={}, now=now)


@pytest.mark.parametrize("model", MODELS)
def test_every_table_can_be_read_and_none_edited(admin_client, something, model: str) -> None:
    response = admin_client.get(reverse(f"admin:kernel_{model}_changelist"))
    assert response.status_code == 200 and b"<script>alert(1)" not in response.content
    assert admin_client.get(reverse(f"admin:kernel_{model}_changelist"), {"q": "x'%"}).status_code == 200
    assert admin_client.get(reverse(f"admin:kernel_{model}_add")).status_code == 403
    rows = response.context["cl"].queryset
    assert rows.count() == 1
    page = reverse(f"admin:kernel_{model}_change", args=[rows.get().pk])
    assert admin_client.get(page).status_code == 200
    assert admin_client.post(page, {"actor": "x"}).status_code == 403
    assert admin_client.post(reverse(f"admin:kernel_{model}_delete", args=[rows.get().pk]), {"post": "yes"}).status_code == 403


def again(client) -> None:
    entry = OutboxEntry.objects.get()
    client.post(reverse("admin:kernel_outboxentry_changelist"), {"action": "deliver_again", "_selected_action": [str(entry.pk)]})


def test_an_ended_message_can_be_delivered_again_and_that_is_audited(admin_client, something, now) -> None:
    (entry,) = outbox.claim(topic="webhook", limit=1, now=now, hold_s=60)
    outbox.dead(entry, error="410", now=now)
    again(admin_client)
    entry.refresh_from_db()
    assert entry.state == "pending" and entry.due_at > now
    written = AuditEntry.objects.get(action="outbox.again")
    assert (written.actor, written.object_id, written.before["state"]) == ("user:admin", str(entry.id), "dead")


def test_who_may_only_look_may_not_deliver(client, something, now) -> None:
    from django.contrib.auth.models import Permission

    looker = User.objects.create_user("looker", password="x", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_outboxentry"))
    client.force_login(looker)
    (entry,) = outbox.claim(topic="webhook", limit=1, now=now, hold_s=60)
    outbox.dead(entry, error="410", now=now)
    again(client)
    entry.refresh_from_db()
    assert entry.state == "dead"
