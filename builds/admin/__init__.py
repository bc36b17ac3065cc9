"""Admin pages of `builds`."""

from builds.admin import images, packs, workflows

__all__ = ["images", "packs", "workflows"]
