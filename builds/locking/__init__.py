"""Locks: from a version and where sources are to be had, to one document that makes the same image in a year."""

from builds.locking.making import Prepared, earlier, keep, make, of, prepare

__all__ = ["Prepared", "earlier", "keep", "make", "of", "prepare"]
