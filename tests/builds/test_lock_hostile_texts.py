"""Texts of locks that would steer a terminal or break a database: refused on the way in, harmless on the way out."""

from __future__ import annotations

from typing import Any

import lock_samples
import pytest

from builds.locking import asking, checking, document, requirements
from controlplane.kernel.errors import Invalid


@pytest.mark.parametrize("odd", ["\x00", "\x1b[2J", "a\nRUN evil", "\x9b2J", "\ud800"])
@pytest.mark.parametrize("part", ["comfyui", "packs", "models", "torch", "python"])
def test_no_text_of_a_lock_holds_control_characters(part: str, odd: str) -> None:
    lock = lock_samples.example()
    held: Any = lock[part]
    (held[0] if isinstance(held, list) else held)["licence" if part == "models" else "as_of" if part == "python" else "version"] = f"1{odd}"
    with pytest.raises(Invalid) as refused:
        checking.check(lock)
    assert refused.value.code == "lock_malformed"


def test_a_sound_lock_passes() -> None:
    assert checking.check(lock_samples.example())


def test_a_version_that_is_no_plain_text_is_none() -> None:
    assert requirements.version_in('[project]\nversion = "1\\u0000"\n') == ""
    assert requirements.version_in('[project]\nversion = "1\\u001b[2J"\n') == ""
    assert requirements.version_in('[project]\nversion = "1.2.3"\n') == "1.2.3"


def test_a_summary_steers_no_terminal() -> None:
    lock = lock_samples.example()
    lock["comfyui"]["version"] = lock["torch"]["version"] = "1\x1b[2J"
    found = [{"level": "warning", "code": "x", "message": "m\x1b[2J", "suggestion": "s\x1b[2J"}]
    answer = {"workflow": "w", "version": 1, "lock": document.sha256(lock), "document": document.normal(lock), "findings": found}
    assert "\x1b" not in "".join(asking.summary(answer))
