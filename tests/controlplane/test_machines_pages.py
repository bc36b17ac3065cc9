"""The kinds of machine a pool orders: the page that lists them, and the forms that change them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet.models import PoolOffer
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
HERE = "/ops/fleet/pools/sdxl/machines/"
TYPED = {"gpu": "L4", "market": "spot", "price": "0.31", "most": "4", "placement": "", "reason": "Friday"}


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def pool(now):
    return factories.make_pool(now=now, slug="sdxl", provider="docker", gpu="L40S", base=1, max=8, on_demand_share=0.5)


def offer(pool, rank=1, **fields):
    return PoolOffer.objects.create(pool=pool, rank=rank, **({"gpu": f"GPU{rank}", "price_per_hour_microusd": rank * 1_000_000} | fields))


def heading(html):
    found = re.search(r"<h1[^>]*>(.*?)</h1>", html, re.S)
    assert found is not None
    return found[1]


def test_a_pool_without_kinds_says_what_it_orders_and_what_kinds_are_for(pool):
    html = rows.look(signed_in("fleet", "account"), HERE)
    assert heading(html) == "sdxl orders L40S only"
    assert "at $3.60 an hour" in html and f"{HERE}new/" in html


def test_kinds_are_listed_in_their_order_with_workers_refusals_and_prices(pool, now):
    scarce = offer(
        pool, 2, gpu="H100", unavailable_until=now + timedelta(minutes=3), unavailable_reason="sold out <b>here</b>", price_per_hour_microusd=2_490_000
    )
    cheap = offer(pool, 7, gpu="L4", market="spot", most=2, interruptions=3, worker_hours=120.5, unavailable_until=now - timedelta(minutes=30))
    factories.make_worker(pool, now=now, offer=cheap)
    factories.make_worker(pool, now=now, offer=cheap, state="starting")
    factories.make_worker(pool, now=now, offer=scarce, state="stopped", stopped_at=now)
    factories.make_worker(pool, now=now)
    html = rows.look(signed_in("account"), HERE)
    assert html.index("H100") < html.index(">L4<")
    for said in (
        "sold out &lt;b&gt;here&lt;/b&gt;",
        "Cannot be had",
        "1 ready",
        "1 coming",
        "At its most",
        "$2.49",
        "Last refused until",
        "in 120.5 worker hours",
    ):
        assert said in html, said
    assert "1 live worker is of none of these" in html
    assert "<b>here" not in html
    assert heading(html) == "No machine can be had for sdxl now"


def test_the_heading_says_where_the_pool_turns(pool, now):
    first = offer(pool, 1, gpu="H100")
    offer(pool, 2, gpu="A10")
    client = signed_in("viewer")
    assert heading(rows.look(client, HERE)) == "sdxl orders H100 first"
    PoolOffer.objects.filter(id=first.id).update(unavailable_until=now + timedelta(minutes=1))
    assert heading(rows.look(client, HERE)) == "sdxl turns to A10: H100 cannot be had"
    PoolOffer.objects.filter(gpu="A10").update(gpu="H100", market="spot")
    assert heading(rows.look(client, HERE)) == "sdxl turns to H100 spot: H100 on demand cannot be had"
    PoolOffer.objects.filter(market="spot").update(gpu="A10")
    PoolOffer.objects.filter(id=first.id).update(unavailable_until=None, most=0)
    assert heading(rows.look(client, HERE)) == "sdxl turns to A10: H100 is at its most"


def test_prices_are_for_who_sees_money(pool):
    first = offer(pool, price_per_hour_microusd=1_230_000)
    without, within = signed_in("fleet"), signed_in("fleet", "account")
    for path in (HERE, f"{HERE}{first.id}/"):
        assert "1.23" not in rows.look(without, path)
        assert "1.23" in rows.look(within, path)


def test_spot_that_the_policy_never_wants_is_said(pool):
    offer(pool, 1)
    offer(pool, 2, market="spot")
    client = signed_in("fleet")
    assert "Spot is only ordered when nothing on demand can be had" not in rows.look(client, HERE)
    pool.on_demand_share = 1.0
    pool.save()
    assert "Spot is only ordered when nothing on demand can be had" in rows.look(client, HERE)


def test_a_viewer_looks_and_changes_nothing(pool):
    first = offer(pool)
    client = signed_in("viewer", "operator")
    html = rows.look(client, HERE)
    assert "needs the fleet role" in html and f"{HERE}{first.id}/move/" not in html
    for path in ("new/", f"{first.id}/", f"{first.id}/remove/", f"{first.id}/move/", f"{first.id}/ask/"):
        assert client.post(HERE + path, TYPED | {"to": "1"}).status_code == 403, path
    assert PoolOffer.objects.get().gpu == "GPU1"
    assert not AuditEntry.objects.exists()


def test_a_kind_is_added_last_and_audited(pool):
    offer(pool, 3)
    client = signed_in("fleet")
    body = TYPED | {"placement": '{"zone": "b", "memory_mib": 4096}'}
    assert client.post(f"{HERE}new/", body)["Location"] == HERE
    made = PoolOffer.objects.get(gpu="L4")
    assert (made.rank, made.market, made.price_per_hour_microusd, made.most, made.placement) == (4, "spot", 310_000, 4, {"zone": "b", "memory_mib": 4096})
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_id, entry.reason, entry.after["price_per_hour_microusd"]) == ("pool.offer_add", "sdxl", "Friday", 310_000)


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"price": "-0.10"}, "price", "A price cannot be negative."),
        ({"price": ""}, "price", "0 on your own machine"),
        ({"price": "a dollar"}, "price", "This must be dollars"),
        ({"price": "200000"}, "price", "No worker costs more than $100,000 an hour."),
        ({"gpu": "  "}, "gpu", "named by its GPU"),
        ({"gpu": "G" * 61}, "gpu", "at most 60 characters"),
        ({"market": "reserved"}, "market", "There is no market"),
        ({"most": "-1"}, "most", "At most 0 to 1,000 workers"),
        ({"most": "many"}, "most", "must be a whole number"),
        ({"placement": "{"}, "placement", "This is not JSON"),
        ({"placement": "[1]"}, "placement", "A placement is a JSON object"),
        ({"placement": '{"scratch_mib": NaN}'}, "placement", "A placement is a JSON object"),
        ({"placement": '{"zone": "\\u0000"}'}, "placement", "A placement is a JSON object"),
        ({"placement": '{"colour": "red"}'}, "placement", "The setting L4: colour is not known. Known settings: cpus, devices,"),
        ({"placement": '{"memory_mib": -1}'}, "placement", "The setting L4: memory_mib must be"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_kept(pool, wrong, field, said):
    response = signed_in("fleet").post(f"{HERE}new/", TYPED | wrong)
    html = response.content.decode().replace("&#x27;", "'")
    assert response.status_code == 422
    beside = re.search(rf'id="f-{field}-h">(.*?)</span>', html, re.S)
    assert beside is not None and said in beside[1], html[html.find(f'id="f-{field}"') :][:700]
    assert re.search(rf'id="f-{field}"[^>]*aria-invalid="true"', html)
    assert not PoolOffer.objects.exists() and not AuditEntry.objects.exists()


def test_everything_that_is_wrong_is_said_at_once(pool):
    wrong = {"gpu": " ", "price": "-4", "most": "x", "placement": '{"colour": 1}'}
    html = signed_in("fleet").post(f"{HERE}new/", TYPED | wrong).content.decode()
    assert "4 fields below need another value" in html
    assert html.count('aria-invalid="true"') == 4


def test_a_setting_of_the_pool_that_is_wrong_is_not_blamed_on_the_kind(pool):
    type(pool).objects.filter(id=pool.id).update(settings={"memory_mib": -5})
    first = offer(pool)
    client = signed_in("fleet")
    response = client.post(f"{HERE}{first.id}/", TYPED | {"placement": '{"zone": "b"}'})
    assert response.status_code == 422 and "correct it where its policy is edited" in response.content.decode()


def test_a_kind_is_changed_and_its_price_stays_when_it_was_not_shown(pool, now):
    first = offer(pool, gpu="L4", interruptions=5, worker_hours=9.0, unavailable_until=now + timedelta(minutes=5), unavailable_reason="full")
    client = signed_in("fleet")
    assert client.post(f"{HERE}{first.id}/", {"gpu": "L4", "market": "on_demand", "price": "9", "most": "3"}).status_code == 302
    first.refresh_from_db()
    assert (first.price_per_hour_microusd, first.most, first.interruptions, first.unavailable_reason) == (1_000_000, 3, 5, "full")
    assert client.post(f"{HERE}{first.id}/", TYPED | {"price": ""}).status_code == 302
    first.refresh_from_db()
    assert (first.market, first.interruptions, first.worker_hours, first.unavailable_until) == ("spot", 0, 0.0, None), "another market is another kind"
    entry = AuditEntry.objects.latest("seq")
    assert entry.after == {"offer": first.id, "rank": 1, "market": "spot", "most": 4}


def test_sending_a_form_twice_adds_once(pool):
    client = signed_in("fleet")
    token = re.search(r'name="once" value="([^"]+)"', client.get(f"{HERE}new/").content.decode())
    for _ in range(2):
        assert client.post(f"{HERE}new/", TYPED | {"once": token[1]}).status_code == 302
    assert PoolOffer.objects.count() == 1


def test_kinds_change_places(pool):
    one, two, three = (offer(pool, rank) for rank in (1, 4, 32_767))
    client = signed_in("fleet")

    def order():
        return [(o.id, o.rank) for o in PoolOffer.objects.order_by("rank")]

    assert client.post(f"{HERE}{three.id}/move/", {"to": "1"}).status_code == 302
    assert order() == [(three.id, 1), (one.id, 2), (two.id, 3)]
    client.post(f"{HERE}{three.id}/move/", {"to": "2"})
    assert order() == [(one.id, 1), (three.id, 2), (two.id, 3)]
    for nowhere in ("0", "4", "x", "1.5", "1e300"):
        client.post(f"{HERE}{one.id}/move/", {"to": nowhere})
        assert order() == [(one.id, 1), (three.id, 2), (two.id, 3)]
    assert AuditEntry.objects.latest("seq").after["order"] == ["GPU1 on demand", "GPU32767 on demand", "GPU4 on demand"]


def test_a_kind_with_live_workers_stays(pool, now):
    first = offer(pool)
    worker = factories.make_worker(pool, now=now, offer=first)
    client = signed_in("fleet")
    assert "1 worker of it lives" in rows.look(client, f"{HERE}{first.id}/remove/")
    response = client.post(f"{HERE}{first.id}/remove/")
    assert response.status_code == 422 and "It stays." in response.content.decode()
    type(worker).objects.update(state="stopped", stopped_at=now)
    assert "It is the last of the list" in rows.look(client, f"{HERE}{first.id}/remove/")
    assert client.post(f"{HERE}{first.id}/remove/")["Location"] == HERE
    assert not PoolOffer.objects.exists()
    assert AuditEntry.objects.get().action == "pool.offer_remove"


def test_what_could_not_be_had_is_asked_for_again_at_once(pool, now):
    first = offer(pool, unavailable_until=now + timedelta(hours=1), unavailable_reason="full")
    client = signed_in("fleet")
    assert client.post(f"{HERE}{first.id}/ask/").status_code == 302
    first.refresh_from_db()
    assert first.unavailable_until <= timezone.now() and first.unavailable_reason == "full"
    assert "Nothing keeps GPU1 back." in client.post(f"{HERE}{first.id}/ask/", follow=True).content.decode()
    assert AuditEntry.objects.count() == 1


def test_an_offer_of_another_pool_is_not_found_here(pool, now):
    other = offer(factories.make_pool(now=now, slug="other"))
    client = signed_in("fleet")
    for path in (f"{other.id}/", f"{other.id}/remove/", "99999999999999999999/"):
        assert client.get(HERE + path).status_code == 404, path
    assert client.post(f"{HERE}{other.id}/move/", {"to": "1"}).status_code == 404


def test_twenty_kinds_with_long_names_stay_within_the_budget(pool, now):
    for rank in range(1, 21):
        offer(pool, rank, gpu=rows.LONG, unavailable_until=now + timedelta(minutes=1), unavailable_reason=rows.XSS + "x" * 200)
    client = signed_in("fleet", "account")
    html = rows.look(client, HERE)
    assert rows.XSS not in html and f"{HERE}new/" not in html
    assert client.post(f"{HERE}new/", TYPED).status_code == 422


def test_a_pool_that_somebody_else_starts_says_that_kinds_have_no_effect(now):
    factories.make_pool(now=now, slug="theirs", provider="external")
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/theirs/machines/")
    assert heading(html) == "Somebody else starts the machines of theirs" and "have no effect" in html


def test_the_audit_log_tells_prices_to_who_sees_money(pool):
    signed_in("fleet").post(f"{HERE}new/", TYPED | {"price": "0.317"})
    seer, other = signed_in("account"), signed_in("viewer")
    html, csv = rows.look(seer, "/ops/audit/"), rows.read_csv(seer.get("/ops/audit.csv"))
    assert "<b>price per hour</b> $0.317" in html and "317000" in csv[0]["after"]
    html, csv = rows.look(other, "/ops/audit/"), rows.read_csv(other.get("/ops/audit.csv"))
    assert "shown to the account role" in html and "0.317" not in html
    assert "317000" not in csv[0]["after"] and '"gpu": "L4"' in csv[0]["after"]
