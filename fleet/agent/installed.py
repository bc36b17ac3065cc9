"""The packages of whichever interpreter runs this: imported by the agent, or a script for ComfyUI's own interpreter."""

from __future__ import annotations

import json
import sys
from importlib import metadata


def packages() -> dict[str, str]:
    found = {str(d.metadata["Name"]).lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(packages()))
