"""A tiny real prompt: the engine is ready when one has passed through it, not when its port answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fleet.agent.comfy import Comfy
from fleet.agent.config import Patience
from fleet.agent.drive import Drive
from fleet.agent.events import EventSocket
from fleet.agent.order import Order

TIMEOUT_S = 120.0


def graph(classes: Collection[str]) -> dict[str, Any] | None:
    """The warm-up prompt, or None when the server lacks the core image nodes."""
    if not {"EmptyImage", "PreviewImage"} <= set(classes):
        return None
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


async def warm_up(comfy: Comfy, socket: EventSocket, classes: Collection[str], patience: Patience) -> str | None:
    """Run it; None when the engine is ready, else the reason it is not."""
    prompt = graph(classes)
    if prompt is None:
        return None
    conclusion = await Drive(comfy, socket, Order(prompt, timeout_s=TIMEOUT_S, stall_s=TIMEOUT_S), patience=patience).conclude()
    if conclusion.failure is not None:
        return conclusion.failure.message
    return None if conclusion.history or conclusion.executed else "the warm-up prompt had no output"
