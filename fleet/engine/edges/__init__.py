"""The HTTP edges: each parses, asks the engine once, and answers."""
