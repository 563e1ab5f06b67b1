"""The one error of this package."""

from __future__ import annotations


class BagError(RuntimeError):
    """A bag (or a folder to be made one) that cannot be read or written; names the file."""
