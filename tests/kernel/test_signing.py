from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from controlplane.kernel import signing

ADA, BOB = UUID(int=1), UUID(int=2)


@given(st.binary(max_size=200).filter(lambda b: b.isascii()), st.integers(1, 100))
def test_the_public_library_accepts_what_we_sign(body: bytes, epoch: int) -> None:
    now = datetime.now(UTC)
    made = signing.headers(secrets=signing.current(ADA, epoch), message_id="msg_1", body=body, now=now)
    Webhook(signing.derive(ADA, epoch)).verify(body, made, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.derive(ADA, epoch + 1)).verify(body, made, json_parse=False)


def test_we_accept_what_the_public_library_signs(now) -> None:
    secret = signing.derive(ADA, 1)
    made = {"Webhook-Id": "m", "Webhook-Timestamp": str(int(now.timestamp())), "Webhook-Signature": Webhook(secret).sign("m", now, '{"a":1}')}
    assert signing.verify(secrets=[secret], headers=made, body=b'{"a":1}', now=now)
    assert not signing.verify(secrets=[secret], headers=made, body=b'{"a":2}', now=now)


def test_secrets_differ_by_customer_epoch_and_installation(settings) -> None:
    made = {signing.derive(ADA, 1), signing.derive(ADA, 2), signing.derive(BOB, 1)}
    assert signing.derive(str(ADA), 1) in made
    settings.SECRET_KEY = "another"
    made.add(signing.derive(ADA, 1))
    assert len(made) == 4 and all(secret.startswith("whsec_") for secret in made)


def test_after_a_rotation_the_secret_before_still_verifies_and_older_ones_do_not(now) -> None:
    made = signing.headers(secrets=signing.current(ADA, 3), message_id="m", body=b"x", now=now)
    assert len(made["webhook-signature"].split(" ")) == 2
    accepted = [epoch for epoch in (1, 2, 3, 4) if signing.verify(secrets=[signing.derive(ADA, epoch)], headers=made, body=b"x", now=now)]
    assert accepted == [2, 3]
    assert len(signing.current(ADA, 1)) == 1


@pytest.mark.parametrize(("shift_s", "good"), [(0, True), (299, True), (-299, True), (301, False), (-301, False)])
def test_an_old_or_future_message_is_refused(now, shift_s: int, good: bool) -> None:
    made = signing.headers(secrets=[signing.derive(ADA, 1)], message_id="m", body=b"x", now=now + timedelta(seconds=shift_s))
    assert signing.verify(secrets=[signing.derive(ADA, 1)], headers=made, body=b"x", now=now) is good


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "x", "v1,", "v1,***", "v2,abc", "-1", "9" * 40, "v1,é"])
def test_damaged_headers_are_refused(now, name: str, value: str | None) -> None:
    made = signing.headers(secrets=[signing.derive(ADA, 1)], message_id="m", body=b"x", now=now)
    damaged = {k: v for k, v in made.items() if k != name} | ({} if value is None else {name: value})
    assert not signing.verify(secrets=[signing.derive(ADA, 1)], headers=damaged, body=b"x", now=now)
