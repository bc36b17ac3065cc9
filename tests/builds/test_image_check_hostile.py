"""What a pack prints last may look like the probe's answer; it ends the check in words, never in a bug."""

from __future__ import annotations

import pytest

from builds.images import checking
from controlplane.kernel.errors import Invalid


@pytest.mark.parametrize("last", [b"[" * 200_000, b'{"object_info": ' * 50_000, b"7", b"null", b'"x"', b"{", b"\xff\xfe", b""])
def test_a_hostile_last_line_is_an_image_that_does_not_start(last: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        checking._understood(0, b"hello\n" + last, ["said"], False, 2048, 1.0)
    assert refused.value.code == "image_does_not_start"
    assert refused.value.details["tail"] == ["said"]
