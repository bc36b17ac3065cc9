"""Members of staff with roles, as a browser signs them in and as a script names itself."""

from __future__ import annotations

import base64

from django.contrib.auth.models import Group, User
from django.test import Client

from controlplane.console import roles

PASSWORD = "correct horse"


def member(*groups: str, staff: bool = True) -> User:
    """The one who has exactly these roles; made when asked for first. Its name says them."""
    roles.ensure()
    name = f"ops-{'-'.join(groups) or 'none'}"
    user = User.objects.filter(username=name).first() or User.objects.create_user(name, password=PASSWORD, is_staff=staff)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


def login(*groups: str, staff: bool = True) -> dict[str, str]:
    """The headers a script sends."""
    user = member(*groups, staff=staff)
    return {"Authorization": "Basic " + base64.b64encode(f"{user.username}:{PASSWORD}".encode()).decode()}


def signed_in(*groups: str) -> Client:
    """A browser behind the sign-in page."""
    client = Client()
    client.force_login(member(*groups))
    return client
