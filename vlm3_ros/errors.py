# SPDX-License-Identifier: Apache-2.0
"""The base of all errors that a user can mend, and those that several folders raise."""

from __future__ import annotations


class Vlm3Error(Exception):
    """Something that the user can mend; the text says what is wrong and what to do.

    Commands print it in one line, nodes log it and show it in /diagnostics, both without a
    traceback. Any other exception is a fault of this package.
    """


class BagError(Vlm3Error):
    """A recording that cannot be read or written; the text names the file."""


class CommandError(Vlm3Error):
    """A command line that cannot be carried out."""


class DatasetError(Vlm3Error):
    """A data set, or a frame of one, that cannot be read; the text names the file and the line."""


class MessageError(Vlm3Error, ValueError):
    """A message without usable content."""


class NoAnswersError(Vlm3Error):
    """A model answered too few questions; the text says how many, why, and what to do."""
