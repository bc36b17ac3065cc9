"""Merge two versions over their common ancestor, node by node and field by field.

Pure: contents and choices in, a `Merged` out. What both sides changed differently is a `Clash` that names
node and field and waits for a choice; until it has one, our side stands. The graph that comes out never
holds a link to a node that is gone, nor a circle, that was not there before: those are clashes too.
"""

from builds.merging.clashes import OURS, THEIRS, Clash
from builds.merging.merge import Merged, merge

__all__ = ["OURS", "THEIRS", "Clash", "Merged", "merge"]
