"""What differs between two versions, node by node: graph, API, models, packs and limits.

Pure: contents in, a `Diff` out. Nodes are matched by id, and by their place in the graph when a new
export renumbered them, so that new numbers alone are not a change of everything.
"""

from builds.comparing.content import Content
from builds.comparing.differences import Diff, diff

__all__ = ["Content", "Diff", "diff"]
