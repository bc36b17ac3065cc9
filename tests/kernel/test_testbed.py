"""The ground the other tests stand on."""

from __future__ import annotations

import os
import socket
from datetime import UTC
from pathlib import Path

import pytest
from django.conf import settings


def test_files_go_to_a_directory_that_ends_with_the_tests(data_dir: Path) -> None:
    from django.core.files.storage import default_storage

    assert data_dir == settings.DATA_DIR and os.environ["DATA_DIR"] == str(data_dir)
    assert Path(default_storage.path("x")).is_relative_to(data_dir)
    assert settings.BASE_DIR not in data_dir.parents


@pytest.mark.parametrize("address", [("93.184.216.34", 80), ("10.0.0.1", 80)])
def test_nothing_beyond_this_machine_can_be_reached(address: tuple[str, int]) -> None:
    with socket.socket() as s, pytest.raises(OSError, match="may not connect"):
        s.connect(address)
    with pytest.raises(OSError, match="may not look up"):
        socket.create_connection(("example.com", 80), timeout=1)


def test_loopback_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=2):
        pass


def test_now_is_aware(now) -> None:
    assert now.tzinfo is UTC
