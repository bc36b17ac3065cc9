"""A customer can fetch what checks our webhooks: with any Standard Webhooks library, and through a rotation."""

import pytest
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from billing.models import Customer
from controlplane.kernel import signing
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db
BODY = b'{"type":"job.succeeded"}'


def signed(customer):
    return signing.headers(secrets=signing.current(customer.id, customer.webhook_epoch), message_id="m1", body=BODY, now=timezone.now())


def test_the_secret_verifies_what_is_sent_and_an_older_one_does_until_it_is_replaced():
    api = world.caller("acme")
    customer = Customer.objects.get(slug="acme")
    first = api.get("/v1/webhook-secret").json()
    assert first["previous"] is None
    assert Webhook(first["secret"]).verify(BODY, signed(customer)) == {"type": "job.succeeded"}
    customer.webhook_epoch = 2
    customer.save()
    second = api.get("/v1/webhook-secret").json()
    assert second["previous"] == first["secret"] != second["secret"]
    for secret in second.values():
        Webhook(secret).verify(BODY, signed(customer))


def test_it_is_of_the_caller_alone_and_for_keys_that_may_ask_for_webhooks():
    mine, theirs = (world.caller(slug).get("/v1/webhook-secret").json()["secret"] for slug in ("acme", "rival"))
    assert mine != theirs
    with pytest.raises(WebhookVerificationError):
        Webhook(theirs).verify(BODY, signed(Customer.objects.get(slug="acme")))
    assert world.caller("reader", scopes=["jobs:read"]).get("/v1/webhook-secret").status_code == 403
