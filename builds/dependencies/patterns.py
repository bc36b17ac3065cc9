"""Class-name patterns of the public lists, in a subset that cannot run away.

Python's `re` backtracks, and a list may come from anybody. Accepted are literals, escapes, character
sets, anchors, groups with alternatives, and at most two unbounded repeats, each of a single
character; a repeated group, a nested repeat, a look-around or a back-reference is refused. On a name
of 200 characters the worst accepted pattern takes milliseconds.
"""

from __future__ import annotations

import re

MAX_PATTERN = 200
MAX_NAME = 200
MAX_REPEATS = 2

_TOKEN = re.compile(
    r"(?P<set>\[\^?(?:[^\]\[\\]|\\[^A-Za-z0-9]|\\[dwsDWS])+\])|(?P<escape>\\(?:[^A-Za-z0-9]|[dwsDWS]))|(?P<mark>[()|^$])|(?P<repeat>[*+?])|(?P<char>[^\\\[\]{}])"
)


def safe(pattern: object) -> str:
    """`pattern` when it may be evaluated, else empty."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
        return ""
    at, repeats, repeatable = 0, 0, False
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            return ""
        if token.lastgroup == "repeat":
            if not repeatable:
                return ""
            repeats += token.group() != "?"
        repeatable = token.lastgroup in ("set", "escape", "char")
        at = token.end()
    if repeats > MAX_REPEATS:
        return ""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return ""
    # One that fits the empty name fits every name.
    return "" if compiled.search("") else pattern


def compiled(pattern: object) -> re.Pattern[str] | None:
    """`pattern` ready to be asked, or None when it may not be."""
    text = safe(pattern)
    return re.compile(text) if text else None


def fits(pattern: re.Pattern[str], name: str) -> bool:
    """Whether a class name fits a pattern that `compiled` gave."""
    return len(name) <= MAX_NAME and pattern.search(name) is not None
