"""Who may change a pool's size but not see money learns no price, budget or cost from the policy's form, whatever they send."""

from __future__ import annotations

import base64
import re
import zlib
from contextlib import suppress
from datetime import datetime

import pytest

from fleet.models import Pool
from tests.controlplane import shell_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
URL = "/ops/fleet/pools/l40s-image/edit/"
HIDDEN = ("12.34", "56.78", "9.87", "12340000", "56780000", "9870000")


@pytest.fixture
def pool(now: datetime) -> Pool:
    made, *_ = rows.busy_world(now)
    Pool.objects.filter(id=made.id).update(budget_per_hour_microusd=12_340_000, budget_per_day_microusd=56_780_000, price_per_hour_microusd=9_870_000)
    made.refresh_from_db()
    return made


def opened(html: str) -> str:
    """The page with every hidden value that can be opened, opened."""
    for value in re.findall(r'value="([^"]{8,})"', html):
        for part in value.lstrip(".").split(":"):
            with suppress(Exception):
                raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
                html += raw.decode("utf-8", "ignore")
                html += zlib.decompress(raw).decode("utf-8", "ignore")
    return html


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"try": "1"},
        {"try": "1", "maximum": "5"},
        {"budget_hour": "lots"},
        {"price": "-1", "try": "1"},
        {"budget_day": "1e99"},
        {"maximum": "none"},
    ],
)
def test_nothing_they_send_shows_money(pool: Pool, sent: dict[str, str]) -> None:
    client = signed_in("fleet")
    answer = client.post(URL, sent) if sent else client.get(URL)
    page = opened(answer.content.decode())
    assert [text for text in HIDDEN if text in page] == []
    pool.refresh_from_db()
    assert (pool.budget_per_hour_microusd, pool.budget_per_day_microusd, pool.price_per_hour_microusd) == (12_340_000, 56_780_000, 9_870_000)


def test_what_they_say_of_money_is_not_tried_and_not_saved_and_the_rest_is(pool: Pool) -> None:
    client = signed_in("fleet")
    assert client.post(URL, {"maximum": "5", "price": "0.01", "budget_hour": "", "policy": pool.policy}).status_code == 302
    pool.refresh_from_db()
    assert (pool.max, pool.price_per_hour_microusd, pool.budget_per_hour_microusd) == (5, 9_870_000, 12_340_000)


def test_who_sees_money_sees_and_changes_it(pool: Pool) -> None:
    client = signed_in("fleet", "account")
    assert 'value="9.87"' in client.get(URL).content.decode()
    assert client.post(URL, {"price": "nothing"}).status_code == 422
    assert client.post(URL, {"price": "0.5", "policy": pool.policy}).status_code == 302
    pool.refresh_from_db()
    assert pool.price_per_hour_microusd == 500_000
