# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are asked and answer like the authors', whose weights are not public."""
