"""The components of every page, one tag each; their markup is in templates/cp/. `{% load cp %}` first.

Numbers (filters, all take None and say it in words):
    {{ microusd|usd }} {{ microusd|usd_tile }} {{ share_of_one|pct }} {{ seconds|dur }} {{ seconds|dur_tile }} {{ n|count }} {{ bytes|size }}
    {% when moment %}                     <time>, relative with the absolute on hover; {% when moment "not started" %} for None

Small things:
    {% icon "gpu" "sm" %}                 names: see templates/cp/icons.html
    {% badge "Healthy" "ok" %}            kinds: ok warn bad info acc, "" is grey; icon="pause" to choose another
    {% status job.status %}               a badge with the one wording for a job status, worker state or rollout result
    {% delta "4%" "ok" "down" %}          kind "" or "muted" when the direction is neither good nor bad
    {% meter 0.43 "warn" label="budget left" mark=0.8 %}     share of one
    {% chip "Failed" href="?status=failed" on=True count=3 icon="xoct" %}
    {% spark values "Jobs an hour" color="--c2" %}           list of numbers, None is a gap
    {% glyph "up" %}                      event marker: deploy up down incident note
    {% code text id="curl" label="curl" %}                   block with a copy button
    {% mono some_id %}                    an id, copyable

Blocks (each ends with end<name>):
    {% tiles %}{% tile "Queue" "9" unit="jobs" detail="drains in 12 s" kind="bad" href=url spark=values %}{% endtiles %}
    {% card "Fleet" link=url link_text="All pools" desc="" flush=True id="pools" %}…{% slot head %}chips{% endslot %}{% slot foot %}…{% endslot %}{% endcard %}
                                          flush=True for tables and lists that touch the card's edges
    {% table "Workers" cards=True c3=True %}<thead>…</thead><tbody>…</tbody>{% endtable %}      cards: stacks on a phone, cells carry data-l
    {% th "Jobs" sort="jobs" num=True %}  header cell that sorts by ?sort=jobs / ?sort=-jobs
    {% callout "warn" %}…{% endcallout %} kinds: bad warn info ok ""
    {% empty "No jobs match" icon="filter" %}<p>…</p><div class="row">buttons</div>{% endempty %}     level=2 where the card has no title
    {% dialog "suspend" "Suspend Lumen?" action=url confirm="lumen" button="Suspend Lumen" keep="Keep active" %}…fields…{% enddialog %}
                                          a form; open it with <a href="{confirm page}" data-act="dialog" data-target="suspend">

Lists given as data:
    {% kv rows %}                         [(term, value)] or [(term, value, kind)]
    {% tabs items %}                      [(label, url, is_current)] or with a count as fourth
    {% stackbar parts label="…" %}        [(label, amount, "--c1")] with legend; legend=False leaves it out
    {% bars rows %}                       [(label, share of one, text)] or with kind, href
    {% legend items %}                    [(label, "--c1", "line|dash|dot|area|box")]
    {% chart spec "One sentence that states the finding." src=series_url table=True %}     spec: see static/cp/charts.js
    {% field "Name" "name" value type="text" hint="" error=errors.name required=True %}    also type="textarea", "select" with options=[(value, label)]
    {% toast "Saved" "ok" %}              base.html shows Django messages this way
    {% pager page %}                      cursor paging: page has .next (address) and .shown
    {% fragment url %}…{% endfragment %}  a live region: asked again every 5 s, morphed in place
    {% guard allowed "fleet" %}…{% endguard %}               wraps controls: disabled with the role needed when not allowed
    {% form_token %}                      csrf and the once-only token of a POST form
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import template
from django.core.serializers.json import DjangoJSONEncoder
from django.middleware.csrf import get_token
from django.template.base import FilterExpression, NodeList, Parser, Token, token_kwargs
from django.template.context import Context
from django.template.loader import get_template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from controlplane.console import navigation as menu
from controlplane.console import numbers, once, sparks, states

register = template.Library()

register.filter("usd", numbers.usd)
register.filter("pct", numbers.pct)
register.filter("points", numbers.points)
register.filter("dur", numbers.dur)
register.filter("count", numbers.count)
register.filter("size", numbers.size)
register.filter("stamp", numbers.stamp)

ICON_OF_KIND = {"ok": "check", "warn": "alert", "bad": "xoct", "info": "loader", "acc": "canary"}
_JSON_ESCAPES = {ord(">"): "\\u003E", ord("<"): "\\u003C", ord("&"): "\\u0026"}


def _render(component: str, /, **values: Any) -> SafeString:
    return SafeString(get_template(f"cp/{component}.html").render(values))


@register.filter
def usd_tile(microusd: int | None) -> str:
    return numbers.usd(microusd, tile=True)


@register.filter
def dur_tile(seconds: float | None) -> str:
    return numbers.dur(seconds, tile=True)


@register.filter
def get(mapping: dict[Any, Any], key: Any) -> Any:
    """mapping[key] in a template."""
    return mapping.get(key) if mapping else None


@register.filter
def lastpart(path: str) -> str:
    """The last part of an address, for the search box of a page not found."""
    return path.rstrip("/").rpartition("/")[2]


@register.simple_tag(takes_context=True)
def when(context: Context, moment: datetime | None, missing: str = "not yet") -> str:
    if moment is None:
        return missing
    now = context.get("now") or timezone.now()
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), numbers.stamp(moment), numbers.ago(moment, now))


@register.simple_tag
def icon(name: str, cls: str = "") -> SafeString:
    return format_html('<svg class="ic {}" aria-hidden="true"><use href="#i-{}"/></svg>', cls, name)


@register.simple_tag
def badge(text: str, kind: str = "", icon: str = "") -> SafeString:
    return _render("badge", text=text, kind=kind, icon=icon or ICON_OF_KIND.get(kind, "dot"))


@register.simple_tag
def status(state: str) -> SafeString:
    word, kind, symbol = states.words(state)
    return badge(word, kind, symbol)


@register.simple_tag
def delta(text: str, kind: str = "muted", direction: str = "flat") -> SafeString:
    return format_html('<span class="delta {}">{}{}</span>', kind, icon(f"arrow-{direction}", "sm"), text)


@register.simple_tag
def meter(share: float | None, kind: str = "", label: str = "", mark: float | None = None) -> SafeString:
    percent = round(max(0.0, min(1.0, share or 0.0)) * 100, 1)
    return _render("meter", percent=percent, kind=kind, label=label, mark=None if mark is None else round(max(0.0, min(1.0, mark)) * 100, 1))


@register.simple_tag
def chip(text: str, href: str, on: bool = False, count: int | None = None, icon: str = "") -> SafeString:
    return _render("chip", text=text, href=href, on=on, count=count, icon=icon)


@register.simple_tag
def spark(values: Sequence[float | None], label: str, color: str = "--c1", width: int = 92, height: int = 26) -> SafeString:
    return sparks.spark(values, label=label, color=color, width=width, height=height)


@register.simple_tag
def glyph(kind: str) -> SafeString:
    return _render("glyph", kind=kind)


@register.simple_tag
def code(text: str, id: str, label: str = "Code") -> SafeString:
    return _render("code", text=text, id=id, label=label)


@register.simple_tag
def mono(text: Any) -> SafeString:
    return format_html('<span class="mono">{}</span>', text)


@register.simple_tag
def tile(label: str, value: Any, unit: str = "", detail: Any = "", kind: str = "", href: str = "", spark: Sequence[float | None] = ()) -> SafeString:
    picture = sparks.spark(spark, label=label, width=52, height=22) if spark else ""
    return _render("tile", label=label, value=value, unit=unit, detail=detail, kind=kind, href=href, spark=picture)


@register.simple_tag
def kv(rows: Sequence[Sequence[Any]]) -> SafeString:
    return _render("kv", rows=[(*row, "")[:3] for row in rows])


@register.simple_tag
def tabs(items: Sequence[Sequence[Any]], label: str = "Sections") -> SafeString:
    return _render("tabs", items=[(*item, None)[:4] for item in items], label=label)


@register.simple_tag
def stackbar(parts: Sequence[tuple[str, float, str]], label: str = "", legend: bool = True) -> SafeString:
    total = sum(p[1] for p in parts) or 1
    rows = [{"label": name, "share": amount / total, "width": round(amount / total * 100, 2), "color": color} for name, amount, color in parts if amount > 0]
    spoken = label or ", ".join(f"{r['label']} {numbers.pct(float(r['share']))}" for r in rows)  # type: ignore[arg-type]
    return _render("stackbar", parts=rows, label=spoken, legend=legend)


@register.simple_tag
def bars(rows: Sequence[Sequence[Any]]) -> SafeString:
    return _render("bars", rows=[(*row, "", "")[:5] for row in rows])


@register.simple_tag
def legend(items: Sequence[tuple[str, str, str]]) -> SafeString:
    return _render("legend", items=items)


@register.simple_tag
def chart(spec: dict[str, Any], summary: str, src: str = "", table: bool = True) -> SafeString:
    data = json.dumps(spec, cls=DjangoJSONEncoder, separators=(",", ":")).translate(_JSON_ESCAPES)
    return _render("chart", data=SafeString(data), height=spec.get("height", 220), summary=summary, src=src, table=table)


@register.simple_tag
def field(
    label: str, name: str, value: Any = "", type: str = "text", hint: str = "", error: str = "", required: bool = False,
    options: Sequence[tuple[Any, str]] = (), attrs: str = "", placeholder: str = "",
) -> SafeString:  # fmt: skip
    shown = "" if value is None else value
    return _render(
        "field",
        label=label,
        name=name,
        value=shown,
        type=type,
        hint=hint,
        error=error,
        required=required,
        options=options,
        attrs=attrs,
        placeholder=placeholder,
    )


@register.simple_tag
def toast(text: str, kind: str = "ok") -> SafeString:
    return _render("toast", text=text, kind=kind, icon=ICON_OF_KIND.get(kind, "check"))


@register.simple_tag
def pager(page: Any) -> SafeString:
    return _render("pager", page=page)


@register.simple_tag(takes_context=True)
def form_token(context: Context) -> SafeString:
    request = context["request"]
    return format_html(
        '<input type="hidden" name="csrfmiddlewaretoken" value="{}"><input type="hidden" name="once" value="{}">', get_token(request), once.token()
    )


@register.simple_tag(takes_context=True)
def th(context: Context, label: str, sort: str = "", num: bool = False) -> SafeString:
    request = context["request"]
    now = request.GET.get("sort") or context.get("default_sort", "")
    query = request.GET.copy()
    query.pop("cursor", None)
    query["sort"] = f"-{sort}" if now == sort else sort
    direction = "ascending" if now == sort else "descending" if now == f"-{sort}" else ""
    return _render("th", label=label, href=f"?{query.urlencode()}" if sort else "", num=num, direction=direction)


@register.simple_tag(takes_context=True)
def navigation(context: Context) -> list[menu.Group]:
    """The menu of this person: pages that exist and their roles may open."""
    return menu.groups(context["request"], active=str(context.get("active") or ""))


@register.simple_tag
def shortcuts_data() -> SafeString:
    """Where g and a letter go, for cp.js."""
    data = SafeString(json.dumps(menu.shortcuts()).translate(_JSON_ESCAPES))
    return format_html('<script type="application/json" id="cp-go">{}</script>', data)


@register.simple_tag(takes_context=True)
def theme(context: Context) -> SafeString:
    """data-theme as chosen by the address or the cookie; nothing follows the system."""
    request = context.get("request")
    chosen = (request.GET.get("theme") or request.COOKIES.get("cp-theme", "")) if request else ""
    return SafeString(f' data-theme="{chosen}"' if chosen in ("light", "dark") else "")


# -- blocks ------------------------------------------------------------------------------------


class _Slot(template.Node):
    def __init__(self, name: str, nodelist: NodeList) -> None:
        self.name, self.nodelist = name, nodelist

    def render(self, context: Context) -> SafeString:
        context["_slots"][self.name] = self.nodelist.render(context)
        return SafeString("")


class _Block(template.Node):
    """A component around content: positional words by `names`, the rest by keyword."""

    def __init__(self, name: str, values: dict[str, FilterExpression], nodelist: NodeList) -> None:
        self.name, self.values, self.nodelist = name, values, nodelist

    def render(self, context: Context) -> SafeString:
        values: dict[str, Any] = {k: v.resolve(context) for k, v in self.values.items()}
        slots: dict[str, str] = {}
        with context.push(_slots=slots):
            values["content"] = SafeString(self.nodelist.render(context))
        values.update(slots=slots, request=context.get("request"), csrf_token=context.get("csrf_token"), icon_of_kind=ICON_OF_KIND.get(values.get("kind", "")))
        return _render(self.name, **values)


@register.tag("slot")
def _slot(parser: Parser, token: Token) -> _Slot:
    name = token.split_contents()[1]
    nodelist = parser.parse(("endslot",))
    parser.delete_first_token()
    return _Slot(name, nodelist)


def _block(name: str, *positional: str) -> None:
    def compile_it(parser: Parser, token: Token) -> _Block:
        bits = token.split_contents()[1:]
        values: dict[str, FilterExpression] = {}
        words = list(positional)
        while bits:
            given = token_kwargs(bits, parser)
            if given:
                values.update(given)
            elif words:
                values[words.pop(0)] = parser.compile_filter(bits.pop(0))
            else:
                raise template.TemplateSyntaxError(f"{{% {name} %}} does not know {bits[0]!r}")
        nodelist = parser.parse((f"end{name}",))
        parser.delete_first_token()
        return _Block(name, values, nodelist)

    register.tag(name, compile_it)


_block("tiles", "label")
_block("card", "title")
_block("table", "label")
_block("callout", "kind")
_block("empty", "title")
_block("dialog", "id", "title")
_block("fragment", "url")
_block("guard", "allowed", "role")
