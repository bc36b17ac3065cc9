"""Node types that live on the canvas only: the server has no class for them.

Some are decoration, some pass a link on, some carry a value, and some rewrite the graph when a person
presses Queue; the last kind cannot be converted exactly, and each names its way out.
"""

from __future__ import annotations

DECORATION = frozenset(
    {
        *("Note", "MarkdownNote", "Note Plus (mtb)"),
        *("Label (rgthree)", "Bookmark (rgthree)", "Node Collector (rgthree)", "Fast Actions Button (rgthree)"),
        *("Fast Muter (rgthree)", "Fast Bypasser (rgthree)", "Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)"),
        *("Mute / Bypass Relay (rgthree)", "Mute / Bypass Repeater (rgthree)"),
    }
)
REROUTES = frozenset({"Reroute", "Reroute (rgthree)"})
PRIMITIVES = frozenset({"PrimitiveNode"})
SETTERS = frozenset({"SetNode", "easy setNode"})
GETTERS = frozenset({"GetNode", "easy getNode"})

_WIRES = "In ComfyUI convert its invisible links to real ones (right-click the canvas), save and import again."
# What these do depends on the moment of queueing or on the whole canvas.
REWRITING: dict[str, str] = {
    "Anything Everywhere": _WIRES,
    "Anything Everywhere?": _WIRES,
    "Anything Everywhere3": _WIRES,
    "Prompts Everywhere": _WIRES,
    "Seed Everywhere": _WIRES,
    "Random Unmuter (rgthree)": "Unmute the branch you want by hand, delete the node, save and import again.",
}
GROUP_NODE_PREFIXES = ("workflow>", "workflow/")
GROUP_NODE_FIX = "In ComfyUI convert the group node to nodes or to a subgraph, save and import again."


def is_group_node(kind: str) -> bool:
    """Whether `kind` is one of the old group nodes, whose insides the file keeps elsewhere."""
    return kind.startswith(GROUP_NODE_PREFIXES)
