"""API keys: looked up by a unique prefix, compared by SHA-256 in constant time, shown once.

A key is 256 random bits, so a fast hash is the right one. Rotation overlaps: the old key keeps
working until the date given, and every use of it is dated.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from functools import cache

from django.db import transaction

from billing.models import Account, ApiKey, Customer, PlanRevision
from controlplane.kernel import ids, sql
from controlplane.kernel.errors import Conflict, Forbidden, Invalid, Unauthenticated

SCOPES = ("jobs:read", "jobs:write", "files:write", "usage:read")
_PREFIX_CHARS = 11  # "cp_" and eight random characters
_LAST_USED_EVERY = timedelta(minutes=1)


def issue(
    *,
    customer: Customer,
    name: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
    rotated_from: ApiKey | None = None,
    now: datetime,
) -> tuple[ApiKey, str]:
    """A new key and its secret. The secret exists only in this answer."""
    chosen = list(SCOPES) if scopes is None else scopes
    if unknown := sorted(set(chosen) - set(SCOPES)):
        raise Invalid("scope_unknown", f"There is no scope {unknown[0]!r}.", f"Choose from {', '.join(SCOPES)}.")
    if expires_at is not None and expires_at <= now:
        raise Invalid("expiry_in_the_past", "The expiry lies in the past.", "Choose a later date, or none.")
    secret = ids.token("cp_", 32)
    key = ApiKey.objects.create(
        customer=customer,
        name=name[:80],
        prefix=secret[:_PREFIX_CHARS],
        digest=_digest(secret),
        last4=secret[-4:],
        scopes=chosen,
        expires_at=expires_at,
        rotated_from=rotated_from,
        created_at=now,
    )
    return key, secret


def authenticate(secret: str, *, now: datetime) -> ApiKey:
    """The key behind `secret`, with its customer and plan; raises Unauthenticated or Forbidden."""
    readable = secret.isascii() and secret.isprintable()  # anything else is no key, and not every database could look for it
    key = _found(secret[:_PREFIX_CHARS]) if readable else None
    if key is None or not hmac.compare_digest(key.digest, _digest(secret)):
        raise Unauthenticated("key_unknown", "This API key is not known.", "Check that the whole key was copied; keys are shown only once.", headers=_CHALLENGE)
    if key.revoked_at is not None and key.revoked_at <= now:
        raise Unauthenticated("key_revoked", "This API key was revoked.", "Use another key, or ask for a new one.", headers=_CHALLENGE)
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated("key_expired", "This API key has expired.", "Use the key it was rotated to, or ask for a new one.", headers=_CHALLENGE)
    if key.customer.status != Customer.Status.ACTIVE:
        raise Forbidden("customer_suspended", "This account is suspended.", "Contact support to have it opened again.")
    if key.last_used_at is None or now - key.last_used_at > _LAST_USED_EVERY:
        ApiKey.objects.filter(id=key.id).update(last_used_at=now)
    return key


def require_scope(key: ApiKey, scope: str) -> None:
    """Raise Forbidden unless `key` carries `scope`."""
    if scope not in key.scopes:
        raise Forbidden("scope_missing", f"This key does not carry the scope {scope}.", "Use a key with that scope.", details={"scope": scope})


@transaction.atomic
def rotate(key: ApiKey, *, overlap: timedelta, now: datetime) -> tuple[ApiKey, str]:
    """A successor with the same name and scopes; the old key ends after `overlap`."""
    held = ApiKey.objects.select_for_update().get(id=key.id)
    if held.revoked_at is not None or (held.expires_at is not None and held.expires_at <= now):
        raise Conflict("key_not_active", "Only a working key can be rotated.", "Issue a new key instead.")
    end = now + overlap
    held.expires_at = min(held.expires_at, end) if held.expires_at else end
    held.save(update_fields=["expires_at"])
    return issue(customer=held.customer, name=held.name, scopes=list(held.scopes), rotated_from=held, now=now)


def revoke(key: ApiKey, *, now: datetime) -> None:
    """End `key` at once. Revoking twice keeps the first time."""
    ApiKey.objects.filter(id=key.id, revoked_at__isnull=True).update(revoked_at=now)


def _found(prefix: str) -> ApiKey | None:
    """The key with its customer, plan and account: read by a prepared statement, because every request does."""
    rows = sql.rows(_statement(), [prefix])
    if not rows:
        return None
    row, parts = list(rows[0]), []
    for model in _READ:
        taken = len(model._meta.concrete_fields)
        parts.append(sql.instance(model, row[:taken]) if row[0] is not None else None)
        del row[:taken]
    key, customer, revision, account = parts
    assert isinstance(key, ApiKey) and isinstance(customer, Customer) and isinstance(revision, PlanRevision)
    key.customer, customer.plan_revision = customer, revision
    if isinstance(account, Account):
        customer.account = account
        account.customer = customer
    return key


@cache
def _statement() -> str:
    chosen = ", ".join(sql.columns(model, alias) for model, alias in zip(_READ, "kcpa", strict=True))
    return (
        f"SELECT {chosen} FROM billing_apikey k JOIN billing_customer c ON c.id = k.customer_id JOIN billing_planrevision p ON p.id = c.plan_revision_id "  # noqa: S608  names of our own models
        "LEFT JOIN billing_account a ON a.customer_id = c.id WHERE k.prefix = %s"
    )


_READ = (ApiKey, Customer, PlanRevision, Account)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="comfyplane", error="invalid_token"'}
