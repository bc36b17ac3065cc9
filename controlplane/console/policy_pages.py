"""How a pool is sized, to be changed: the policy editor with its replay, the revisions with what each changed, and the form of a new pool."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.console import actions, numbers, once, pages, policy_form, policy_words, pool_found, roles
from controlplane.kernel.errors import WorkflowError
from controlplane.kernel.ids import token
from fleet import pools
from fleet.models import PolicyRevision, Pool
from fleet.sizing import policies

REPLAY_HOURS = 24
REPLAY_KEPT_S = 3600
SHOWN = "policy-replay"
"""Where a session keeps the last replay that was shown."""
REVISIONS_SHOWN = 20


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Editing a pool")
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the terms. "Try" shows what they would have done; what was shown is kept with the revision that saves them."""
    pool, now = pool_found.plain(slug), timezone.now()
    form = policy_form.read(request, pool, with_money=roles.sees_money(request)) if request.method == "POST" else policy_form.of_pool(pool)
    replay: Any = None
    if request.method == "POST" and not form.errors:
        if "try" in request.POST:
            replay = pages.part(request, lambda: _replayed(pool, form.changes, now))
        else:
            answer = _saved(request, pool, form, now)
            if answer is not None:
                return answer
    latest = pools.latest_revision(pool)
    context = {
        "pool": pool,
        "form": form,
        "values": form.values,
        "errors": form.errors,
        "policies": [(name, policy_words.name_of(name)) for name in policies.POLICIES],
        "known_settings": policy_form.known_settings(pool.provider),
        "next_revision": (latest.number if latest else 0) + 1,
        "replay": replay,
        "replay_rows": _replay_rows(replay, money=roles.sees_money(request)) if replay is not None and not isinstance(replay, pages.Failed) else [],
        "replay_said": replay.said(money_shown=roles.sees_money(request)) if replay is not None and not isinstance(replay, pages.Failed) else "",
        "replay_kept": _kept(request, form.changes, replay) if replay is not None and not isinstance(replay, pages.Failed) else "",
        "changes": policy_words.diff(pools.terms_of(pool), pools.terms_of(pool) | form.changes, money=roles.sees_money(request)) if replay is not None else [],
    }
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, reverse("ops:pool", args=[slug])), ("Policy", "")]
    return pages.page(
        request, "console/pool_edit.html", context, title=f"Policy of {slug}", active="fleet", crumbs=crumbs, now=now, status=422 if form.errors else 200
    )


def _replayed(pool: Pool, changes: dict[str, Any], now: datetime) -> Any:
    from fleet.planning import replay

    return replay.of_pool(pool, changes, hours=REPLAY_HOURS, now=now)


def _replay_rows(replay: Any, *, money: bool) -> list[tuple[str, Any, Any, str]]:
    """(what, now, new, kind) for the comparison's table."""
    rows = [
        ("cost", "Cost of these hours", "usd"),
        ("within", f"Started within {replay.target_s:g} s", "pct"),
        ("wait_p95_s", "Wait p95", "dur"),
        ("wait_p99_s", "Wait p99", "dur"),
        ("gpu_hours", "Worker hours", "count"),
        ("peak", "Most workers at once", "count"),
        ("launches", "Workers started", "count"),
        ("unserved", "Jobs not started in time", "count"),
    ]
    found = []
    for name, label, kind in rows:
        if name == "cost" and not money:
            continue
        one, other = (getattr(side, "cost_microusd" if name == "cost" else name) for side in (replay.before, replay.after))
        if kind == "count":
            one, other = round(one, 1), round(other, 1)
        if kind == "pct":  # as the sentence above them says it
            one, other, kind = _share(one), _share(other), "text"
        found.append((label, one, other, kind))
    return found


def _share(value: float) -> str:
    return numbers.pct(value) if value >= 0.99 else f"{value * 100:.1f}".removesuffix(".0") + "%"


def _kept(request: HttpRequest, changes: dict[str, Any], replay: Any) -> str:
    """A name for the replay as it was made, so that saving can keep it. It stays on our side: it tells costs, and not everybody may know them."""
    name = token("", 12)
    request.session[SHOWN] = {"name": name, "at": time.time(), "changes": changes, "replay": replay.as_json()}
    return name


def _shown(request: HttpRequest, changes: dict[str, Any]) -> dict[str, Any]:
    """The replay that was shown of exactly these changes; empty when none was."""
    held = request.session.get(SHOWN) or {}
    same = held.get("name") == request.POST.get("replay", "") and held.get("changes") == changes
    return dict(held["replay"]) if same and 0 <= time.time() - held["at"] <= REPLAY_KEPT_S else {}


def _saved(request: HttpRequest, pool: Pool, form: policy_form.Form, now: datetime) -> HttpResponse | None:
    """Save and go back to the pool; None with the refusal beside its field."""
    if not once.first_time(request):
        messages.info(request, "That was done already; nothing was repeated.")
        return redirect("ops:pool", pool.slug)
    try:
        changed = pools.change(pool, form.changes, actor=actions.actor(request), reason=form.values["reason"], replay=_shown(request, form.changes), now=now)
    except WorkflowError as refusal:
        form.errors[policy_form.field_of(refusal, form)] = f"{refusal.message} {refusal.suggestion}"
        return None
    latest = pools.latest_revision(pool)
    said = f"Revision {latest.number} of {pool.slug} is in force." if changed and latest else "Nothing was different, so nothing changed."
    messages.success(request, said)
    return redirect("ops:pool", pool.slug)


@roles.staff
def policy(request: HttpRequest, slug: str) -> HttpResponse:
    """Every revision with what it changed and what its replay said."""
    pool, now = pool_found.plain(slug), timezone.now()
    money = roles.sees_money(request)
    rows = list(PolicyRevision.objects.filter(pool=pool).order_by("-number")[: REVISIONS_SHOWN + 1])
    found = policy_words.revisions(rows, money=money)[:REVISIONS_SHOWN]
    context = {
        "pool": pool,
        "card": policy_words.card(pool, money=money),
        "revisions": found,
        "older": len(rows) > REVISIONS_SHOWN,
        "may_fleet": roles.may(request, "fleet"),
    }
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, reverse("ops:pool", args=[slug])), ("Policy", "")]
    return pages.page(request, "console/pool_policy.html", context, title=f"Policy of {slug}", active="fleet", crumbs=crumbs, now=now)


@require_POST
@roles.needs("fleet", "Restoring a policy")
def restore(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Put the terms of an earlier revision in force again, as a new one."""
    pool = pool_found.plain(slug)
    row = get_object_or_404(PolicyRevision, pool=pool, number=number)

    def act() -> str:
        terms = {name: row.terms[name] for name in pools.TERMS if name in row.terms}
        changed = pools.change(pool, terms, actor=actions.actor(request), reason=f"Restored revision {number}", now=timezone.now())
        latest = pools.latest_revision(pool)
        return f"Revision {number} is in force again, as revision {latest.number}." if changed and latest else f"Nothing differs from revision {number}."

    return actions.done(request, act, back=reverse("ops:pool_policy", args=[slug]))


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Adding a pool")
def new(request: HttpRequest) -> HttpResponse:
    """A new pool."""
    now = timezone.now()
    values: dict[str, Any] = {
        **{"slug": "", "name": "", "provider": "local", "gpu": "cpu", "base": "1", "maximum": "2", "price": "0", "target_s": "60"},
        **{"image": "", "settings": ""},
    }
    errors: dict[str, str] = {}
    if request.method == "POST":
        values |= {name: actions.text(request, name, most=policy_form.MOST_SETTINGS if name == "settings" else 300) for name in values if name in request.POST}
        slug = values["slug"].lower()
        try:
            terms = _new_terms(values, errors)
            if not errors:
                if once.first_time(request):
                    pools.create(slug=slug, actor=actions.actor(request), now=now, **terms)
                    messages.success(request, f"Pool {slug} was added. Its first workers start within seconds.")
                return redirect("ops:pool", slug)
        except WorkflowError as refusal:
            named = str(refusal.details.get("field", "slug"))
            named = policy_form.SETTING_FIELDS.get(named, named)
            errors[named if named in values else "slug"] = f"{refusal.message} {refusal.suggestion}"
    context = {
        "values": values,
        "errors": errors,
        "providers": Pool.Provider.choices,
        "known": [(label, policy_form.known_settings(key)) for key, label in Pool.Provider.choices if policy_form.known_settings(key)],
    }
    crumbs = [("Fleet", reverse("ops:fleet")), ("New pool", "")]
    return pages.page(request, "console/pool_new.html", context, title="New pool", active="fleet", crumbs=crumbs, now=now, status=422 if errors else 200)


def _new_terms(values: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
    """What `pools.create` is given; what cannot be read lands in `errors`."""
    terms: dict[str, Any] = {"name": values["name"], "provider": values["provider"], "gpu": values["gpu"], "image": values["image"]}
    reads = {
        "base": ("base", lambda: policy_form.whole(values["base"], "The minimum")),
        "maximum": ("maximum", lambda: policy_form.whole(values["maximum"], "The maximum")),
        "price_per_hour_microusd": ("price", lambda: policy_form.dollars(values["price"]) or 0),
        "target_s": ("target_s", lambda: policy_form.number(values["target_s"], "The wait target")),
        "settings": ("settings", lambda: policy_form.settings_of(values["provider"], values["settings"])),
    }
    for term, (name, value) in reads.items():
        try:
            terms[term] = value()
        except policy_form.Wrong as wrong:
            errors[name] = str(wrong)
    return terms
