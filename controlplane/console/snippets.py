"""The same call in three languages, made from the values of the form. Pure; every value is quoted for its language."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

LANGUAGES = (("curl", "curl"), ("python", "Python"), ("typescript", "TypeScript"))


def all_of(*, base_url: str, slug: str, values: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, str]:
    """Snippets by language. `values` go as they are; `files` map an input to a file name on the caller's disk."""
    url = f"{base_url.rstrip('/')}/v1/workflows/{slug}/jobs"
    return {"curl": curl(url, values, files), "python": python(url, values, files), "typescript": typescript(url, values, files)}


def curl(url: str, values: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """JSON, or a form when files go with it."""
    # No uuidgen: many small images lack it, and an empty key would be dropped without a word.
    fields = ('"Authorization: Bearer $COMFYPLANE_KEY"', '"Idempotency-Key: $(date +%s)-$RANDOM"', '"Prefer: wait=30"')
    head = f"curl {shlex.quote(url)} \\\n" + "".join(f"  -H {field} \\\n" for field in fields)
    if not files:
        return f'{head}  -H "Content-Type: application/json" \\\n  -d {shlex.quote(json.dumps({"inputs": dict(values)}, ensure_ascii=False))}'
    parts = [f"  --form-string {shlex.quote(f'{name}={_plain(value)}')}" for name, value in values.items()]
    parts += [f"  -F {shlex.quote(f'{name}=@{file}')}" for name, file in files.items()]
    return head + " \\\n".join(parts)


def python(url: str, values: Mapping[str, Any], files: Mapping[str, str]) -> str:
    lines = ["import os, uuid", "import httpx", "", "response = httpx.post(", f"    {url!r},"]
    lines += [
        '    headers={"Authorization": "Bearer " + os.environ["COMFYPLANE_KEY"],',
        '             "Idempotency-Key": str(uuid.uuid4()), "Prefer": "wait=30"},',
    ]
    if files:
        lines += [f"    data={ {name: _plain(value) for name, value in values.items()}!r},"] if values else []
        lines += ["    files={" + ", ".join(f"{name!r}: open({file!r}, 'rb')" for name, file in files.items()) + "},"]
    else:
        lines += [f"    json={ {'inputs': dict(values)}!r},"]
    return "\n".join(
        [*lines, "    timeout=60,", ")", "response.raise_for_status()", "job = response.json()", 'print(job["status"], [o["url"] for o in job["outputs"]])']
    )


def typescript(url: str, values: Mapping[str, Any], files: Mapping[str, str]) -> str:
    lines = []
    if files:
        lines += ['import { openAsBlob } from "node:fs";', "", "const body = new FormData();"]
        lines += [f"body.set({_js(name)}, {_js(_plain(value))});" for name, value in values.items()]
        lines += [f"body.set({_js(name)}, await openAsBlob({_js(file)}), {_js(file)});" for name, file in files.items()]
    else:
        lines += [f"const body = JSON.stringify({json.dumps({'inputs': dict(values)}, ensure_ascii=False, indent=2)});"]
    lines += [
        "",
        f"const response = await fetch({_js(url)}, {{",
        '  method: "POST",',
        "  headers: {",
        "    Authorization: `Bearer ${process.env.COMFYPLANE_KEY}`,",
    ]
    lines += [
        '    "Idempotency-Key": crypto.randomUUID(),',
        '    Prefer: "wait=30",',
        *([] if files else ['    "Content-Type": "application/json",']),
        "  },",
        "  body,",
        "});",
    ]
    return "\n".join(
        [*lines, "if (!response.ok) throw new Error(await response.text());", "const job = await response.json();", "console.log(job.status, job.outputs);"]
    )


def _js(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_TOKENS = re.compile(
    r"""(?P<c>^\#[^\n]*)|(?P<s>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?P<k>\b(?:curl|import|from|const|await|new|if|throw|for|in|print|open)\b)|(?P<n>(?<![\w.:/-])-?\d+(?:\.\d+)?(?![\w.]))""",
    re.MULTILINE,
)


def highlight(text: str) -> SafeString:
    """The text as escaped HTML with strings, numbers, words and comments marked."""
    parts: list[tuple[str, str]] = []
    at = 0
    for match in _TOKENS.finditer(text):
        parts += [("", text[at : match.start()]), (match.lastgroup or "", match.group())]
        at = match.end()
    parts.append(("", text[at:]))
    return format_html_join("", "{}", ((format_html('<span class="{}">{}</span>', kind, piece) if kind else piece,) for kind, piece in parts if piece))
