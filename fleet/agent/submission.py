"""Hand a prompt to ComfyUI exactly once, also when its answer gets lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.agent import classify
from fleet.agent.classify import Failure
from fleet.agent.comfy import Comfy, EngineUnreachable

AGAIN_S = 0.1


@dataclass(frozen=True)
class Handed:
    """What came of it. `in_part` is a prompt that runs although some of its outputs cannot."""

    prompt_id: str
    failure: Failure | None = None
    in_part: bool = False


async def hand_over(comfy: Comfy, body: dict[str, Any], *, gone_s: float, given_up: Callable[[], bool]) -> Handed:
    """Submit until accepted, refused, unreachable for `gone_s`, or `given_up`."""
    prompt_id, began = str(body["prompt_id"]), time.monotonic()
    while not given_up():
        try:
            status, reply = await comfy.submit(body)
        except EngineUnreachable as error:
            # The prompt may have arrived and only the answer got lost: ask before sending it twice.
            known = await _known(comfy, prompt_id)
            if known:
                break
            if known is None and time.monotonic() - began > gone_s:
                return Handed(prompt_id, classify.engine_crashed(f"ComfyUI cannot be reached: {error}"))
            await asyncio.sleep(AGAIN_S)
            continue
        if status != 200 or not isinstance(reply, dict):
            return Handed(prompt_id, classify.validation(status, reply))
        # Servers older than client-chosen ids make their own.
        prompt_id = str(reply.get("prompt_id") or prompt_id)
        if reply.get("node_errors"):
            return Handed(prompt_id, classify.partial(reply["node_errors"]), in_part=True)
        break
    return Handed(prompt_id)


async def _known(comfy: Comfy, prompt_id: str) -> bool | None:
    """Whether the server has the prompt; None when it does not say."""
    try:
        # History once more at the end: it may have finished between the two questions.
        return await comfy.history(prompt_id) is not None or await comfy.queued(prompt_id) is not None or await comfy.history(prompt_id) is not None
    except EngineUnreachable:
        return None
