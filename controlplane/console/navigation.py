"""The menu: only pages that exist and that the person may open, with the states that need someone."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from controlplane.console import roles
from fleet.models import Pool

TABS = ("overview", "fleet", "workflows", "jobs", "customers")


@dataclass(frozen=True)
class Item:
    key: str
    icon: str
    label: str
    href: str
    current: bool = False
    note: str = ""
    note_kind: str = ""

    @property
    def in_tabs(self) -> bool:
        """Whether it is one of the five tabs of a phone."""
        return self.key in TABS


@dataclass(frozen=True)
class Group:
    title: str
    items: list[Item] = field(default_factory=list)


# title, [(key, icon, label, url name, role needed)]
_PLAN: list[tuple[str, list[tuple[str, str, str, str, str]]]] = [
    ("", [("overview", "home", "Overview", "ops:overview", "")]),
    (
        "Run",
        [
            ("workflows", "flow", "Workflows", "ops:workflows", ""),
            ("fleet", "gpu", "Fleet", "ops:fleet", ""),
            ("jobs", "list", "Jobs", "ops:jobs", ""),
            ("smoke", "target", "Smoke matrix", "ops:smoke", ""),
        ],
    ),
    ("Business", [("customers", "users", "Customers", "ops:customers", "")]),
    ("System", [("audit", "shield", "Audit log", "ops:audit", ""), ("admin", "gear", "Configuration", "admin:index", "")]),
]
GO = {"o": "ops:overview", "f": "ops:fleet", "w": "ops:workflows", "j": "ops:jobs", "c": "ops:customers"}


def _address(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


def groups(request: HttpRequest, *, active: str) -> list[Group]:
    """Menu groups in order; a group without pages is left out."""
    known: list[Group] | None = getattr(request, "console_menu", None)
    if known is None:
        halted: int | None = getattr(request, "halted_pools", None)  # a page that read the pools has counted them
        if halted is None:
            halted = Pool.objects.filter(halted_at__isnull=False).count()
        notes = {"fleet": (f"{halted} halted", "bad")} if halted else {}
        known = []
        for title, entries in _PLAN:
            items = [
                Item(key, icon, label, href, key == active, *notes.get(key, ("", "")))
                for key, icon, label, name, role in entries
                if (href := _address(name)) and (not role or roles.may(request, role))
            ]
            if items:
                known.append(Group(title, items))
        request.console_menu = known  # type: ignore[attr-defined]
    return known


def shortcuts() -> dict[str, str]:
    """The second key after g, and where it goes."""
    return {key: href for key, name in GO.items() if (href := _address(name))}
