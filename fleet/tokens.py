"""Secrets of pools and workers. Pool tokens are derived from the installation's secret, never stored; worker tokens are random, kept as digests."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from django.utils.crypto import salted_hmac

from controlplane.kernel import ids
from controlplane.kernel.errors import Unauthenticated
from fleet.models import Pool, Worker


def pool_token(pool: Pool) -> str:
    """What an agent shows to join `pool`. Raising `pool.token_epoch` makes earlier ones useless."""
    digest = salted_hmac("comfyplane.pool", f"{pool.pk}:{pool.token_epoch}", algorithm="sha256").hexdigest()
    return f"cpp_{pool.pk}_{digest}"


def pool_of(token: str) -> Pool:
    """The pool `token` opens; raises Unauthenticated."""
    number = token.removeprefix("cpp_").partition("_")[0]
    pool = Pool.objects.filter(pk=int(number)).first() if token.startswith("cpp_") and number.isdecimal() and len(number) < 19 else None
    if pool is None or not hmac.compare_digest(pool_token(pool).encode(), token.encode()):
        raise Unauthenticated("pool_token_unknown", "This pool token is not valid.", "Start the agent with the token of its pool; it may have been rotated.")
    return pool


def new_worker_token(worker_id: UUID) -> tuple[str, str]:
    """A worker's token and the digest to keep of it."""
    token = ids.token(f"cpw_{worker_id.hex}_", 32)
    return token, _digest(token)


def worker_of(token: str) -> Worker:
    """The live worker `token` belongs to, with its pool; raises Unauthenticated."""
    worker_id = ids.parse_uuid(token.removeprefix("cpw_").partition("_")[0]) if token.startswith("cpw_") else None
    worker = Worker.objects.select_related("pool").filter(id=worker_id).first() if worker_id else None
    if worker is None or not worker.token_digest or not hmac.compare_digest(worker.token_digest, _digest(token)):
        raise Unauthenticated("worker_token_unknown", "This worker token is not valid.", "Register the worker again.")
    if worker.state in (Worker.State.STOPPED, Worker.State.LOST):
        raise Unauthenticated("worker_retired", "This worker was retired.", "Leave; the scaler starts a new one when it is needed.")
    return worker


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
