"""Text, regular expressions, plain values, and showing any of them."""

from __future__ import annotations

import json
import re
from typing import Any

from fleet.engine import readable
from fleet.engine.run import Result, Run
from fleet.engine.specs import choice, flag, integer, link, node, node_v3, number, text

LONG_TEXT = text(multiline=True)
ON = flag(default=True)
OFF = flag(default=False)


@node_v3(
    "StringConcatenate",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Concatenate",
    outputs=["STRING"],
    inputs={"string_a": LONG_TEXT, "string_b": LONG_TEXT, "delimiter": text(default="", multiline=False)},
)
def string_concatenate(run: Run, string_a: str, string_b: str, delimiter: str) -> str:
    run.claim(len(string_a) + len(delimiter) + len(string_b))
    return delimiter.join((string_a, string_b))


@node_v3(
    "StringSubstring",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Substring",
    outputs=["STRING"],
    inputs={"string": LONG_TEXT, "start": integer(), "end": integer()},
)
def string_substring(run: Run, string: str, start: int, end: int) -> str:
    return string[start:end]


@node_v3(
    "StringLength", category="utils/string", module="comfy_extras.nodes_string", title="Length", outputs=["INT"], names=["length"], inputs={"string": LONG_TEXT}
)
def string_length(run: Run, string: str) -> int:
    return len(string)


@node_v3(
    "CaseConverter",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Case Converter",
    outputs=["STRING"],
    inputs={"string": LONG_TEXT, "mode": choice(["UPPERCASE", "lowercase", "Capitalize", "Title Case"])},
)
def case_converter(run: Run, string: str, mode: str) -> str:
    return {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}[mode](string)


@node_v3(
    "StringTrim",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Trim",
    outputs=["STRING"],
    inputs={"string": LONG_TEXT, "mode": choice(["Both", "Left", "Right"])},
)
def string_trim(run: Run, string: str, mode: str) -> str:
    return {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}[mode](string)


@node_v3(
    "StringReplace",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Replace",
    outputs=["STRING"],
    inputs={"string": LONG_TEXT, "find": LONG_TEXT, "replace": LONG_TEXT},
)
def string_replace(run: Run, string: str, find: str, replace: str) -> str:
    run.claim(len(string) + string.count(find) * len(replace))
    return string.replace(find, replace)


@node_v3(
    "StringContains",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Contains",
    outputs=["BOOLEAN"],
    names=["contains"],
    inputs={"string": LONG_TEXT, "substring": LONG_TEXT, "case_sensitive": ON},
)
def string_contains(run: Run, string: str, substring: str, case_sensitive: bool) -> bool:
    return substring in string if case_sensitive else substring.lower() in string.lower()


@node_v3(
    "StringCompare",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Compare",
    outputs=["BOOLEAN"],
    inputs={"string_a": LONG_TEXT, "string_b": LONG_TEXT, "mode": choice(["Starts With", "Ends With", "Equal"]), "case_sensitive": ON},
)
def string_compare(run: Run, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> bool:
    if not case_sensitive:
        string_a, string_b = string_a.lower(), string_b.lower()
    if mode == "Equal":
        return string_a == string_b
    return string_a.startswith(string_b) if mode == "Starts With" else string_a.endswith(string_b)


@node_v3(
    "RegexMatch",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Regex Match",
    outputs=["BOOLEAN"],
    names=["matches"],
    inputs={"string": LONG_TEXT, "regex_pattern": LONG_TEXT, "case_insensitive": ON, "multiline": OFF, "dotall": OFF},
)
def regex_match(run: Run, string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> bool:
    try:
        return re.search(regex_pattern, string, _flags(case_insensitive, multiline, dotall)) is not None
    except re.error:
        return False


@node_v3(
    "RegexExtract",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Regex Extract",
    outputs=["STRING"],
    inputs={
        "string": LONG_TEXT,
        "regex_pattern": LONG_TEXT,
        "mode": choice(["First Match", "All Matches", "First Group", "All Groups"]),
        "case_insensitive": ON,
        "multiline": OFF,
        "dotall": OFF,
        "group_index": integer(default=1, min=0, max=100),
    },
)
def regex_extract(run: Run, string: str, regex_pattern: str, mode: str, case_insensitive: bool, multiline: bool, dotall: bool, group_index: int) -> str:
    try:
        found = list(re.finditer(regex_pattern, string, _flags(case_insensitive, multiline, dotall)))
    except re.error:
        return ""
    index = 0
    if mode.endswith(("Group", "Groups")):
        index = group_index
    elif mode == "All Matches" and found and found[0].re.groups:
        index = 1  # a real server gives the first group there, as findall does
    texts = [match[index] or "" for match in found if index <= match.re.groups]
    return "\n".join(texts if mode.startswith("All") else texts[:1])


@node_v3(
    "RegexReplace",
    category="utils/string",
    module="comfy_extras.nodes_string",
    title="Regex Replace",
    outputs=["STRING"],
    inputs={"string": LONG_TEXT, "regex_pattern": LONG_TEXT, "replace": LONG_TEXT},
    optional={"case_insensitive": ON, "multiline": OFF, "dotall": OFF, "count": integer(default=0, min=0, max=100)},
)
def regex_replace(
    run: Run,
    string: str,
    regex_pattern: str,
    replace: str,
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    count: int = 0,
) -> str:
    # The most a match at every place could make of it, groups repeated in the replacement included.
    run.claim(len(string) + 1, len(replace) + 1)
    return re.sub(regex_pattern, replace, string, count=count, flags=_flags(case_insensitive, multiline, dotall))


@node_v3(
    "PrimitiveString",
    category="utils/primitive",
    module="comfy_extras.nodes_primitive",
    title="String",
    outputs=["STRING"],
    inputs={"value": text(multiline=False)},
)
def primitive_string(run: Run, value: str) -> str:
    return value


@node_v3(
    "PrimitiveStringMultiline",
    category="utils/primitive",
    module="comfy_extras.nodes_primitive",
    title="String (Multiline)",
    outputs=["STRING"],
    inputs={"value": LONG_TEXT},
)
def primitive_string_multiline(run: Run, value: str) -> str:
    return value


@node_v3(
    "PrimitiveInt",
    category="utils/primitive",
    module="comfy_extras.nodes_primitive",
    title="Int",
    outputs=["INT"],
    inputs={"value": integer(min=-9223372036854775807, max=9223372036854775807, control_after_generate=True)},
)
def primitive_int(run: Run, value: int) -> int:
    return value


@node_v3(
    "PrimitiveFloat",
    category="utils/primitive",
    module="comfy_extras.nodes_primitive",
    title="Float",
    outputs=["FLOAT"],
    inputs={"value": number(min=-9223372036854775807, max=9223372036854775807, step=0.1)},
)
def primitive_float(run: Run, value: float) -> float:
    return value


@node_v3("PrimitiveBoolean", category="utils/primitive", module="comfy_extras.nodes_primitive", title="Boolean", outputs=["BOOLEAN"], inputs={"value": flag()})
def primitive_boolean(run: Run, value: bool) -> bool:
    return value


@node("PreviewAny", category="utils", module="comfy_extras.nodes_preview_any", title="Preview as Text", terminal=True, inputs={"source": link("*")})
def preview_any(run: Run, source: Any) -> Result:
    if isinstance(source, str):
        shown = source
    elif isinstance(source, int | float | bool):
        shown = str(source)
    else:
        try:
            shown = "None" if source is None else json.dumps(source)
        except (TypeError, ValueError):
            shown = readable.text(source)
    return Result(ui={"text": [shown]})


def _flags(case_insensitive: bool, multiline: bool, dotall: bool) -> re.RegexFlag:
    flags = re.RegexFlag(0)
    for asked, value in ((case_insensitive, re.IGNORECASE), (multiline, re.MULTILINE), (dotall, re.DOTALL)):
        if asked:
            flags |= value
    return flags
