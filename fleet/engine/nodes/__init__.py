"""The node classes; importing this package registers them all."""

from fleet.engine.nodes import audio, effects, files, images, latents, masks, models, resizing, text, transforms, upscaling

__all__ = ["audio", "effects", "files", "images", "latents", "masks", "models", "resizing", "text", "transforms", "upscaling"]
