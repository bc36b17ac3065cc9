"""What every page of the console shares: components, menu, theme, policy, and the pages that say no."""

import re

import pytest
from django.template import Context, Template, TemplateSyntaxError
from django.test import Client, RequestFactory
from django.utils import timezone

from controlplane.console import pages, roles, sparks, states
from fleet.models import Pool, Worker
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.staff import member, signed_in

PATHS = (
    "/ops/",
    "/ops/fleet/",
    "/ops/fleet/pools/l40s-image/",
    "/ops/customers/",
    "/ops/customers/harbor/",
    "/ops/audit/",
    "/ops/search/",
    "/ops/_components/",
)


def rendered(source, **values):
    return Template("{% load cp %}" + source).render(Context({"now": timezone.now(), **values}))


@pytest.mark.django_db
def test_the_components_page_shows_every_component():
    html = rows.look(signed_in("viewer"), "/ops/_components/")
    for part in (
        "badge ok",
        'class="meter',
        'class="tiles"',
        "data-chart",
        'class="codebox"',
        "<dialog",
        'class="stackbar"',
        'class="toast"',
        "Needs the fleet role",
    ):
        assert part in html, part


@pytest.mark.django_db
def test_no_page_carries_code_of_its_own_and_the_policy_forbids_it():
    rows.busy_world(timezone.now())
    client = signed_in("admin")
    for path in PATHS:
        response = client.get(path)
        html = response.content.decode()
        assert (
            "script-src" not in response["Content-Security-Policy"] or "unsafe" not in response["Content-Security-Policy"].split("script-src")[1].split(";")[0]
        )
        assert "default-src 'self'" in response["Content-Security-Policy"]
        assert re.findall(r"<script(?![^>]*(?:src=|application/json))", html) == []
        assert re.findall(r"\son[a-z]+=", re.sub(r"<script.*?</script>", "", html, flags=re.S)) == []
        assert len(re.findall("<h1", html)) == 1, path


@pytest.mark.django_db
def test_each_page_works_for_each_role_and_only_account_managers_see_money():
    rows.busy_world(timezone.now())
    for role in roles.ROLES:
        client = signed_in(role)
        for path in PATHS[:-1]:
            html = rows.look(client, path)
            if role in ("viewer", "operator", "fleet", "release"):
                assert "per hour" not in html, (role, path)


@pytest.mark.django_db
def test_the_menu_shows_pages_that_exist_and_what_needs_someone():
    Pool.objects.filter(id=factories.make_pool(now=timezone.now()).id).update(halted_at=timezone.now(), halted_reason="x")
    html = rows.look(signed_in("viewer"), "/ops/audit/")
    links = re.findall(r'class="nav" title="([^"]+)" href="([^"]+)"', html)
    assert [name for name, _ in links] == ["Overview", "Workflows", "Fleet", "Jobs", "Smoke matrix", "Customers", "Audit log", "Configuration"]
    assert "1 halted" in html
    assert 'href="#"' not in html.split("<main")[0]


@pytest.mark.django_db
def test_the_theme_comes_from_the_cookie_and_only_known_ones_do():
    client = signed_in("viewer")
    client.cookies["cp-theme"] = "dark"
    assert '<html lang="en" data-theme="dark">' in rows.look(client, "/ops/")
    client.cookies["cp-theme"] = '"><script>'
    assert '<html lang="en">' in rows.look(client, "/ops/")


@pytest.mark.django_db
def test_a_page_that_is_not_there_offers_search_to_staff_and_nothing_to_others(client):
    assert b'value="lost-thing"' in signed_in("viewer").get("/ops/customers/lost-thing/").content
    html = client.get("/nowhere/lost-thing/").content.decode()
    assert "There is nothing at this address" in html and "/ops/search/" not in html


@pytest.mark.django_db
def test_a_form_without_the_token_of_its_session_is_refused_in_plain_words():
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(member("fleet"))
    response = strict.post("/ops/fleet/new/", {"slug": "x"})
    assert response.status_code == 403
    assert "This page was too old to send" in response.content.decode()
    assert not Pool.objects.exists()


@pytest.mark.django_db
def test_the_roles_exist_and_an_administrator_has_them_all():
    request = RequestFactory().get("/")
    request.user = member("admin")
    assert roles.of(request) == set(roles.ROLES)
    request = RequestFactory().get("/")
    request.user = member("fleet")
    assert roles.of(request) == {"fleet"}
    assert not roles.sees_money(request)


def test_values_of_users_are_escaped_in_every_component():
    evil = '"><script>alert(1)</script>'
    source = (
        "{% badge x 'ok' %}{% tile x x unit=x detail=x %}{% meter 0.5 '' x %}{% chip x href=x %}{% kv rows %}{% bars bars %}{% code x id='a' label=x %}"
        "{% field x 'n' x hint=x error=x placeholder=x %}{% toast x %}{% card x desc=x %}{% endcard %}{% empty x %}{% endempty %}{% spark v x %}"
        "{% chart spec x %}{% legend legend %}{% stackbar parts label=x %}{% tabs tabs %}"
    )
    html = rendered(
        source, x=evil, rows=[(evil, evil)], bars=[(evil, 0.5, evil, "", "")], v=[1, 2], spec={"x": [1], "series": [{"label": evil, "data": [1]}]},
        legend=[(evil, "--c1", "line")], parts=[(evil, 1, "--c1")], tabs=[(evil, evil, True)],
    )  # fmt: skip
    assert "<script>alert" not in html


def test_a_missing_number_is_a_word():
    assert (
        rendered("{{ a|usd }} {{ a|pct }} {{ a|dur }} {{ a|count }} {{ a|size }} {% when a 'not started' %}", a=None) == "none none none none none not started"
    )


def test_a_sparkline_keeps_gaps_and_takes_anything():
    assert sparks.spark([], label="x") == ""
    assert sparks.spark([None, None], label="x") == ""
    assert sparks.spark([1, 2, None, 4, 5], label="x").count("<polyline") == 2
    assert "nan" not in sparks.spark([0, 0, 0], label="x")


def test_a_block_with_words_too_many_is_a_template_error():
    with pytest.raises(TemplateSyntaxError):
        rendered("{% card 'a' 'b' %}{% endcard %}")


def test_every_state_of_a_worker_has_its_words():
    assert all(state in states.WORDS for state in Worker.State.values)


def test_a_csv_cell_is_never_a_formula():
    body = b"".join(pages.csv_file("x", ["a"], [["=1+1"], ["-2"], [-2], [None]]).streaming_content).decode()
    assert body.splitlines() == ["a", "'=1+1", "'-2", "-2", ""] or body.splitlines()[1:4] == ["'=1+1", "'-2", "-2"]


@pytest.mark.parametrize("given", ["", "x", "W10", "WyJhIl0", "é" * 100, "bnVsbA"])
def test_no_cursor_breaks_a_page(given):
    found = pages.cursor(RequestFactory().get("/", {"cursor": given}))
    assert found is None or isinstance(found, list)
