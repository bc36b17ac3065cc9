"""Canvas files to API graphs, without a browser and equal to what the web client would send.

Pure: a document and a class table in, a graph or an `Inexact` out; no database, no Django, no clock.
"""

from builds.conversion.api_graph import convert
from builds.conversion.canvas import is_canvas
from builds.conversion.problems import Inexact, Problem

__all__ = ["Inexact", "Problem", "convert", "is_canvas"]
