"""The operator's login and the customers' keys that `up` made, kept in a file only its owner may read.

They exist once: a later start reads them again. Lose the file and `up` makes new ones; what a person changed since is
left alone.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model

OPERATOR = "operator"


def path() -> Path:
    return Path(settings.DATA_DIR) / "secrets" / "credentials.json"


def read() -> dict[str, Any]:
    """What is kept; empty before the first start."""
    try:
        kept: dict[str, Any] = json.loads(path().read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return kept


def keep(**values: Any) -> dict[str, Any]:
    """Put values into the file, all at once."""
    kept = read() | values
    path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path().with_name(f".{path().name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        json.dump(kept, handle, indent=1)
    fresh.replace(path())
    return kept


def ensure_operator() -> tuple[str, str]:
    """The operator's name and password. A password in the file that no longer opens the account was changed by a person and stays so."""
    known = read().get("operator") or {}
    users = get_user_model().objects
    user = users.filter(username=OPERATOR).first()
    if user is not None and known.get("password"):
        return OPERATOR, known["password"]
    password = known.get("password") or secrets.token_urlsafe(12)
    if user is None:
        user = users.create_user(OPERATOR, password=password)
    else:
        user.set_password(password)
    user.is_staff = user.is_superuser = True
    user.save()
    keep(operator={"username": OPERATOR, "password": password})
    return OPERATOR, password


def shown() -> dict[str, Any]:
    """What `manage.py credentials --json` prints."""
    kept = read()
    return {"base_url": kept.get("base_url", settings.PUBLIC_URL), "operator": kept.get("operator"), "api_key": kept.get("api_key")}
