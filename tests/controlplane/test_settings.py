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
