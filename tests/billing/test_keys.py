"""API keys: shown once, known by their hash, ended on time, rotated with an overlap."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from factories import make_customer, make_key
from racing import race

from billing import customers, keys
from billing.models import ApiKey
from controlplane.kernel.errors import Conflict, Forbidden, Invalid, Unauthenticated, WorkflowError

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def code_of(secret: str, now: datetime) -> str:
    with pytest.raises(WorkflowError) as refused:
        keys.authenticate(secret, now=now)
    assert refused.value.message and refused.value.suggestion
    return refused.value.code


def test_the_secret_is_nowhere_in_the_database(now: datetime) -> None:
    key, secret = make_key(make_customer(now=now), now=now)
    row = ApiKey.objects.filter(id=key.id).values().get()
    assert secret not in str(row) and secret[len(key.prefix) :] not in str(row)
    assert (row["last4"], row["prefix"], len(row["digest"])) == (secret[-4:], secret[:11], 64)
    assert keys.authenticate(secret, now=now).customer.account is not None


@pytest.mark.parametrize("secret", ["", "x", "cp_", "cp_\x00aaaaaaa", "cp_\ud800aaaaaa", "é" * 4000, "cp_" + "a" * 100_000, "Bearer x", "' OR 1=1 --"])
def test_what_is_no_key_is_refused_as_unknown(now: datetime, secret: str) -> None:
    make_key(make_customer(now=now), now=now)
    assert code_of(secret, now) == "key_unknown"


def test_a_key_with_the_right_prefix_and_another_secret_is_unknown(now: datetime) -> None:
    _, secret = make_key(make_customer(now=now), now=now)
    assert code_of(secret[:-1] + ("a" if secret[-1] != "a" else "b"), now) == "key_unknown"
    assert code_of(secret + "a", now) == "key_unknown"
    assert code_of(secret[:11], now) == "key_unknown"


def test_a_key_ends_at_its_expiry_to_the_moment(now: datetime) -> None:
    _, secret = make_key(make_customer(now=now), now=now, expires_at=now + HOUR)
    assert keys.authenticate(secret, now=now + HOUR - timedelta(microseconds=1))
    assert code_of(secret, now + HOUR) == "key_expired"


def test_revoking_is_at_once_and_keeps_the_first_time(now: datetime) -> None:
    key, secret = make_key(make_customer(now=now), now=now)
    keys.revoke(key, now=now)
    keys.revoke(key, now=now + HOUR)
    assert code_of(secret, now) == "key_revoked"
    assert ApiKey.objects.get(id=key.id).revoked_at == now


def test_rotation_overlaps_and_then_only_the_new_key_works(now: datetime) -> None:
    key, old = make_key(make_customer(now=now), now=now, scopes=["jobs:read"])
    fresh, new = keys.rotate(key, overlap=HOUR, now=now)
    assert (fresh.rotated_from_id, fresh.scopes, fresh.name) == (key.id, ["jobs:read"], key.name)
    for secret in (old, new):
        assert keys.authenticate(secret, now=now + HOUR / 2)
    assert code_of(old, now + HOUR) == "key_expired"
    assert keys.authenticate(new, now=now + HOUR)


def test_rotation_never_lengthens_a_life(now: datetime) -> None:
    key, old = make_key(make_customer(now=now), now=now, expires_at=now + HOUR)
    keys.rotate(key, overlap=timedelta(days=30), now=now)
    assert code_of(old, now + HOUR) == "key_expired"


def test_only_a_working_key_is_rotated(now: datetime) -> None:
    customer = make_customer(now=now)
    revoked, _ = make_key(customer, now=now)
    keys.revoke(revoked, now=now)
    expired, _ = make_key(customer, now=now, expires_at=now + HOUR)
    for key, at in ((revoked, now), (expired, now + HOUR)):
        with pytest.raises(Conflict) as refused:
            keys.rotate(key, overlap=HOUR, now=at)
        assert refused.value.code == "key_not_active"
    assert ApiKey.objects.count() == 2


def test_a_suspended_customer_is_told_so_by_every_key(now: datetime) -> None:
    customer = make_customer(now=now)
    _, secret = make_key(customer, now=now)
    customers.set_status(customer, status="suspended", actor="op", reason="unpaid", now=now)
    with pytest.raises(Forbidden) as refused:
        keys.authenticate(secret, now=now)
    assert refused.value.code == "customer_suspended"
    customers.set_status(customer, status="active", actor="op", reason="paid", now=now)
    assert keys.authenticate(secret, now=now)


def test_a_key_that_has_ended_says_so_before_the_suspension(now: datetime) -> None:
    """Whoever holds an old key learns nothing of the account."""
    customer = make_customer(now=now)
    key, secret = make_key(customer, now=now)
    keys.revoke(key, now=now)
    customers.set_status(customer, status="suspended", actor="op", reason="", now=now)
    assert code_of(secret, now) == "key_revoked"


def test_the_last_use_is_dated_at_most_once_a_minute(now: datetime) -> None:
    key, secret = make_key(make_customer(now=now), now=now)
    keys.authenticate(secret, now=now)
    keys.authenticate(secret, now=now + timedelta(seconds=59))
    assert ApiKey.objects.get(id=key.id).last_used_at == now
    keys.authenticate(secret, now=now + timedelta(seconds=61))
    assert ApiKey.objects.get(id=key.id).last_used_at == now + timedelta(seconds=61)


def test_scopes_and_expiry_are_checked_when_issued(now: datetime) -> None:
    customer = make_customer(now=now)
    with pytest.raises(Invalid) as refused:
        make_key(customer, now=now, scopes=["jobs:read", "root"])
    assert refused.value.code == "scope_unknown"
    with pytest.raises(Invalid) as refused:
        make_key(customer, now=now, expires_at=now)
    assert refused.value.code == "expiry_in_the_past"
    key, _ = make_key(customer, now=now, scopes=[])
    with pytest.raises(Forbidden) as missing:
        keys.require_scope(key, "jobs:read")
    assert missing.value.details == {"scope": "jobs:read"}


def test_the_refusal_challenges(now: datetime) -> None:
    with pytest.raises(Unauthenticated) as refused:
        keys.authenticate("cp_nothing", now=now)
    assert refused.value.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.django_db(transaction=True)
def test_rotating_at_once_leaves_one_chain_of_working_keys(now: datetime) -> None:
    key, old = make_key(make_customer(now=now), now=now)
    results = race(6, lambda _: keys.rotate(key, overlap=timedelta(0), now=now))
    made = [r for r in results if isinstance(r, tuple)]
    assert len(made) == 1 and all(isinstance(r, Conflict) for r in results if not isinstance(r, tuple))
    assert code_of(old, now) == "key_expired"
