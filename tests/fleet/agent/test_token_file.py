"""An agent's pool token may lie in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.agent import config

TOLD = {"COMFYPLANE_URL": "http://127.0.0.1:1"}


def test_the_pool_token_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("cpp_1_abc\n")
    settings, _ = config.from_args([], {**TOLD, "COMFYPLANE_POOL_TOKEN_FILE": str(file)})
    assert settings.pool_token == "cpp_1_abc"
    settings, _ = config.from_args([], {**TOLD, "COMFYPLANE_POOL_TOKEN_FILE": str(file), "COMFYPLANE_POOL_TOKEN": "cpp_1_said"})
    assert settings.pool_token == "cpp_1_said"


def test_a_token_file_that_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config.from_args([], {**TOLD, "COMFYPLANE_POOL_TOKEN_FILE": str(tmp_path / "none")})
    assert "COMFYPLANE_POOL_TOKEN_FILE cannot be read" in capsys.readouterr().err
