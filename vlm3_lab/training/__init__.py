# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning by the paper's recipe, from procedural scenes or a user's own data."""
