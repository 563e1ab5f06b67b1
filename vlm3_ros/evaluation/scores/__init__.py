# SPDX-License-Identifier: Apache-2.0
"""Scores by task: a module for each, from answers and truth to JSON and tables."""
