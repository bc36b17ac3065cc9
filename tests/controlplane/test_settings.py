"""What the settings make on a first start is for their owner alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path


def test_a_fresh_data_dir_is_closed_to_others(tmp_path: Path) -> None:
    where = tmp_path / "data"
    env = {**os.environ, "DATA_DIR": str(where), "SECRET_KEY": "", "METRICS_TOKEN": ""}
    subprocess.run([sys.executable, "-c", "import os; os.umask(0o022); import controlplane.settings"], env=env, check=True, cwd=Path(__file__).parents[2])
    for path in (where, where / "secrets", where / "secrets" / "secret_key", where / "secrets" / "metrics_token"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


SERVED = """
import django; django.setup()
from django.core.management import call_command
from django.test import Client
call_command("collectstatic", interactive=False, verbosity=0)
found = Client().get("/static/cp/cp.css", headers={"accept-encoding": "gzip"})
print(found.status_code, found.get("Content-Encoding"), b"".join(found.streaming_content)[:2] == bytes([31, 139]))
"""


def test_an_image_serves_what_it_collected_compressed(tmp_path: Path) -> None:
    env = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "STATIC_DIR": str(tmp_path / "static"), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    run = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", SERVED], env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.stdout.split() == ["200", "gzip", "True"], run.stderr[-2000:]
