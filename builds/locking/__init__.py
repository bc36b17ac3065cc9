"""Locks: from a version and where sources are to be had, to one document that makes the same image in a year."""
