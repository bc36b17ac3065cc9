"""Webhook signatures by the Standard Webhooks scheme: HMAC-SHA256 over id, timestamp and the exact body.

A customer's secret is derived from the installation's key, the customer and an epoch, and stored
nowhere. Raising the epoch rotates it; messages then carry the signatures of both, so that a receiver
can change over at its own time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings

TOLERANCE_S = 300


def derive(customer_id: UUID | str, epoch: int) -> str:
    """The secret of a customer at an epoch: `whsec_…`."""
    meant = f"comfyplane webhook secret 1|{UUID(str(customer_id))}|{int(epoch)}"
    return "whsec_" + base64.b64encode(hmac.digest(settings.SECRET_KEY.encode(), meant.encode(), "sha256")).decode()


def current(customer_id: UUID | str, epoch: int) -> list[str]:
    """The secrets to sign with: this epoch's, and the one before it for receivers that have not changed over."""
    return [derive(customer_id, e) for e in (epoch, epoch - 1) if e >= 1]


def headers(*, secrets: Sequence[str], message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers that sign `body`, one signature per secret."""
    timestamp = str(int(now.timestamp()))
    signatures = " ".join("v1," + base64.b64encode(_mac(secret, message_id, timestamp, body)).decode() for secret in secrets)
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signatures}


def verify(*, secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime, tolerance_s: float = TOLERANCE_S) -> bool:
    """Whether one of `secrets` signed this message within the tolerance."""
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 15):
        return False
    if abs(now.timestamp() - int(timestamp)) > tolerance_s:
        return False
    signatures = [text for version, _, text in (part.partition(",") for part in given.get("webhook-signature", "").split(" ")) if version == "v1"]
    good = False
    for secret in secrets:
        expected = _mac(secret, message_id, timestamp, body)
        for text in signatures[:10]:
            try:
                good |= hmac.compare_digest(expected, base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                continue
    return good


def _mac(secret: str, message_id: str, timestamp: str, body: bytes) -> bytes:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
