"""Components of the work pages: {% load work %}.

{% timebar parts %}          where a job's time went: one bar, and every part with its time below
{% dag picture %}            a workflow graph as SVG; `picture` is a console.graph_view.Picture
{% wires picture %}          the legend of the data types that occur in it
{% formfield field %}        one input of a workflow's form, from console.run_form.Field
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import template
from django.template.loader import get_template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from builds.layout import LayoutGroup
from controlplane.console import numbers, rates, snippets
from controlplane.console.graph_view import Node, Picture, wire_style

register = template.Library()

_MARKS = {"changed": "chg", "added": "add", "removed": "gone"}
_CHAR_PX = 5.9  # mean advance of the 11.5 px title; long titles are cut, the whole one is in the label


@register.simple_tag
def timebar(parts: Sequence[dict[str, Any]], label: str = "Where the time went") -> str:
    spoken = "; ".join(f"{p['label']} {numbers.dur(p['seconds'])}, {numbers.pct(p['share'])}" for p in parts)
    return get_template("console/job_bar.html").render({"parts": parts, "label": f"{label}: {spoken or 'nothing yet'}"})


register.filter("highlight", snippets.highlight)
register.filter("success", rates.success)


@register.simple_tag
def formfield(field: Any) -> str:
    return get_template("console/workflow_field.html").render({"f": field})


@register.simple_tag
def wires(picture: Picture) -> SafeString:
    """A stroke and a word for each data type drawn."""
    return format_html(
        '<div class="legend">{}</div>',
        format_html_join(
            "", '<span><svg viewBox="0 0 20 10" aria-hidden="true"><path d="M0 5h20" stroke="var({})" stroke-width="2.4"{}/></svg>{}</span>',
            ((color, _dash(dash), word) for word, color, dash in picture.legend),
        ),
    )  # fmt: skip


@register.simple_tag
def dag(picture: Picture) -> SafeString:
    """The graph. Every text of it was written by a customer or a stranger and is escaped."""
    paths = format_html_join(
        "", '<path d="{}" stroke="var({})" stroke-width="1.8" fill="none" opacity=".85"{}/>', (_wire(e.path, e.type) for e in picture.edges)
    )
    nodes = format_html_join("", "{}", ((_node(n),) for n in picture.nodes))
    groups = format_html_join("", "{}", ((_group(g),) for g in picture.groups))
    return format_html(
        '<svg viewBox="0 0 {} {}" style="min-width:{}px;max-width:{}px" role="group" aria-label="Workflow graph, {} nodes">{}{}{}</svg>',
        _px(picture.width), _px(picture.height), round(picture.width * 0.92), round(picture.width * 1.12), len(picture.nodes), groups, paths, nodes,
    )  # fmt: skip


def _group(g: LayoutGroup) -> SafeString:
    """A frame of the author's, behind everything. Its colour was checked when it was read."""
    return format_html(
        '<g class="grp"><rect x="{}" y="{}" width="{}" height="{}" rx="9"{}/><text x="{}" y="{}" font-size="11.5" font-weight="600">{}</text></g>',
        _px(g.x), _px(g.y), _px(g.w), _px(g.h), format_html(' fill="{}"', g.tint) if g.tint else "", _px(g.x + 10), _px(g.y + 16), _cut(g.title, g.w - 20),
    )  # fmt: skip


def _wire(path: str, kind: str) -> tuple[str, str, SafeString]:
    _, color, dash = wire_style(kind)
    return path, color, _dash(dash)


def _dash(dash: str) -> SafeString:
    return format_html(' stroke-dasharray="{}"', dash) if dash else SafeString("")


def _node(n: Node) -> SafeString:
    inner = [
        format_html("<title>{}</title>", n.label),
        *([format_html('<rect class="bx" x="{}" y="{}" width="{}" height="{}" rx="7"/>', _px(n.x + 4), _px(n.y + 4), _px(n.w), _px(n.h))] if n.href else []),
        format_html('<rect class="bx" x="{}" y="{}" width="{}" height="{}" rx="7"/>', _px(n.x), _px(n.y), _px(n.w), _px(n.h)),
        format_html(
            '<text x="{}" y="{}" font-size="11.5" font-weight="600">{}</text>',
            _px(n.x + (26 if n.problem else 9)),
            _px(n.y + 18),
            _cut(n.title, n.w - (35 if n.problem else 18)),
        ),
        format_html('<text x="{}" y="{}" font-size="11" class="v">{}</text>', _px(n.x + 9), _px(n.y + 33), _cut(n.value or f"#{n.id}", n.w - 18)),
        format_html('<rect class="tr" x="{}" y="{}" width="{}" height="3" rx="1.5"/>', _px(n.x + 9), _px(n.y + n.h - 8), _px(n.w - 18)),
    ]
    for at, line in enumerate(n.lines):
        inner.append(format_html('<text x="{}" y="{}" font-size="10.5" class="v">{}</text>', _px(n.x + 9), _px(n.y + 50 + 15 * at), _cut(line, n.w - 18)))
    if n.tint:
        inner.append(format_html('<rect x="{}" y="{}" width="{}" height="3" fill="{}"/>', _px(n.x + 7), _px(n.y + 1), _px(n.w - 14), n.tint))
    if n.change:
        width = 14 + len(n.change) * 6.3
        inner.append(format_html('<rect class="mk" x="{}" y="{}" width="{}" height="16" rx="4"/>', _px(n.x + n.w - width - 4), _px(n.y - 8), _px(width)))
        inner.append(
            format_html('<text class="mk" x="{}" y="{}" font-size="10.5" font-weight="650">{}</text>', _px(n.x + n.w - width + 3), _px(n.y + 4), n.change)
        )
    if n.problem:
        inner.append(format_html('<use href="#i-alert" class="ic wn" x="{}" y="{}" width="14" height="14"/>', _px(n.x + 8), _px(n.y + 7)))
    if n.share is not None and n.share > 0.001:
        inner.append(
            format_html(
                '<rect x="{}" y="{}" width="{}" height="3" rx="1.5" fill="var(--accent)"/>', _px(n.x + 9), _px(n.y + n.h - 8), _px(max(2, (n.w - 18) * n.share))
            )
        )
    if n.exposed:
        x, y = _px(n.x), _px(n.y + n.h / 2)
        inner.append(format_html('<circle cx="{}" cy="{}" r="5" fill="var(--accent)"/><circle cx="{}" cy="{}" r="2" fill="var(--accent-fg)"/>', x, y, x, y))
    classes = "".join([" miss" if n.problem else "", f" {_MARKS[n.change]}" if n.change in _MARKS else "", " sub" if n.href else ""])
    body = format_html_join("", "{}", ((part,) for part in inner))
    if n.href:
        return format_html('<a class="nd{}" href="{}" aria-label="{}, open">{}</a>', classes, n.href, n.label, body)
    return format_html('<g class="nd{}" tabindex="0" role="img" aria-label="{}">{}</g>', classes, n.label, body)


def _cut(text: str, width: float) -> str:
    most = max(4, int(width / _CHAR_PX))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
