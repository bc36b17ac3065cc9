"""Which models a version's lock lets workers fetch by themselves, so that a pool without them is no fault of the version."""

from __future__ import annotations

from uuid import UUID

from builds.models import VersionLock


def fetchable(version_id: UUID) -> frozenset[str]:
    """File names, below their folder, of the models with a hash and an address in the newest lock; empty without a lock."""
    held = VersionLock.objects.filter(version_id=version_id).select_related("lock").first()
    if held is None:
        return frozenset()
    return frozenset(str(model.get("filename")) for model in held.lock.document.get("models") or [] if model.get("sha256") and model.get("urls"))
