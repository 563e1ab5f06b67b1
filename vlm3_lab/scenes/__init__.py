# SPDX-License-Identifier: Apache-2.0
"""Procedural scenes with exact depth, poses and boxes, for training data and the sample bag.

World frames follow REP-103 (x forward, y left, z up, metres), camera frames are optical.
"""

from vlm3_lab.scenes.kinds import KINDS
from vlm3_lab.scenes.views import sample_view

__all__ = ["KINDS", "sample_view"]
