"""What the web client does to text on its way to the server.

Prompts lose their comments and have `{a|b}` drawn at random; file name prefixes have dates and other
nodes' values put in. What depends on chance or on the clock has no exact conversion.
"""

from __future__ import annotations

import re
from collections.abc import Container

_COMMENT = re.compile(r"/\*[\s\S]*?\*/|//[^\n\r\u2028\u2029]*")
_TOKEN = re.compile(r"(\\[\s\S]|[{}|])")
_REPLACED = re.compile(r"%date(?::[^%]*)?%|%[^%/\\\s.][^%/\\.]*\.[^%/\\]+%")
# Classes whose prefix the client fills in; others' prefixes travel as they are.
FILLED_IN = frozenset(
    {
        *("SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveSVGNode", "SaveWEBM", "SaveVideo", "SaveGLB", "SaveLatent"),
        *("SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "CLIPSave", "VAESave", "ModelSave", "LoraSave"),
    }
)
_ESCAPED = frozenset({"\\{", "\\}", "\\|"})


def drawn(text: str) -> str | None:
    """The prompt as sent, or None when it is drawn at random. A choice of one is no choice."""
    if "{" not in text and "\\" not in text and "/" not in text:
        return text
    open_blocks: list[list[list[str]]] = [[[]]]
    for part in _TOKEN.split(_COMMENT.sub("", text)):
        depth = len(open_blocks) - 1
        if part == "{":
            open_blocks.append([[]])
        elif part == "}" and depth:
            if not _close(open_blocks):
                return None
        elif part == "|" and depth:
            open_blocks[-1].append([])
        else:
            open_blocks[-1][-1].append(part[1] if part in _ESCAPED else part)
    while len(open_blocks) > 1:
        if not _close(open_blocks):
            return None
    return "".join(open_blocks[0][0])


def _close(open_blocks: list[list[list[str]]]) -> bool:
    options = {"".join(one) for one in open_blocks.pop()}
    open_blocks[-1][-1].append(next(iter(options)))
    return len(options) == 1


def replaced(text: str, names: Container[str]) -> str:
    """The first part of a file name prefix that the client would replace, or empty; `names` are what nodes go by."""
    for found in _REPLACED.finditer(text) if "%" in text else ():
        part = found.group(0)
        if part.startswith("%date") or part[1:].partition(".")[0] in names:
            return part
    return ""
