# SPDX-License-Identifier: Apache-2.0
"""Metrics: arrays in, numbers out."""
