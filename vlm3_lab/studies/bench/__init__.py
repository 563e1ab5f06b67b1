# SPDX-License-Identifier: Apache-2.0
"""Bench: what asking costs on a machine, and what it must cost at least."""
