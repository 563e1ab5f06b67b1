# SPDX-License-Identifier: Apache-2.0
"""Warm-ups: training through layers that are discarded afterwards."""
