"""Where workers come from. Each provider is a module with one class; `of` picks the pool's."""

from __future__ import annotations

from fleet.models import Pool
from fleet.providers.base import Provider
from fleet.providers.external import External
from fleet.providers.local import Local

_PROVIDERS: dict[str, type[Provider]] = {Pool.Provider.LOCAL: Local, Pool.Provider.EXTERNAL: External}
_made: dict[str, Provider] = {}


def of(pool: Pool) -> Provider:
    """The provider of `pool`, one per process because it remembers its children."""
    if pool.provider not in _made:
        _made[pool.provider] = _PROVIDERS[pool.provider]()
    return _made[pool.provider]


__all__ = ["Provider", "of"]
