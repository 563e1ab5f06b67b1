# SPDX-License-Identifier: Apache-2.0
"""Answers and scores by task, the same for views of any source: data sets, procedural scenes."""
