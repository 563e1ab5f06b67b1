# SPDX-License-Identifier: Apache-2.0
"""Studies of models: scores on procedural scenes, ablation, speed, and one picture of all tasks."""
