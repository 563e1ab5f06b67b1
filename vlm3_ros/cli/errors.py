"""Errors of the commands themselves."""

from __future__ import annotations


class CommandError(RuntimeError):
    """Something that a user asked for and that cannot be done; told in one line."""
