"""Errors of a run."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run that cannot start, or cannot go on; the message says why, and how it can."""
