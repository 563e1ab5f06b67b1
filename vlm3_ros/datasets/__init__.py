# SPDX-License-Identifier: Apache-2.0
"""Data sets as people have them: readers of their formats, which all give the same frames."""
