"""Where workers come from. Each provider is a module with one class; `of` picks the pool's and imports it when it is first needed."""

from __future__ import annotations

from importlib import import_module

from fleet.models import Pool
from fleet.providers.base import Provider

_PROVIDERS: dict[str, tuple[str, str]] = {
    Pool.Provider.LOCAL: ("fleet.providers.local", "Local"),
    Pool.Provider.DOCKER: ("fleet.providers.docker", "Docker"),
    Pool.Provider.KUBERNETES: ("fleet.providers.kubernetes", "Kubernetes"),
    Pool.Provider.EXTERNAL: ("fleet.providers.external", "External"),
}
_made: dict[str, Provider] = {}


def of(pool: Pool) -> Provider:
    """The provider of `pool`, one per process because it keeps its connections and its children."""
    if pool.provider not in _made:
        module, name = _PROVIDERS[pool.provider]
        _made[pool.provider] = getattr(import_module(module), name)()
    return _made[pool.provider]


__all__ = ["Provider", "of"]
