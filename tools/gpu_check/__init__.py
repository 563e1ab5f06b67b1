# SPDX-License-Identifier: Apache-2.0
"""Measure this package on a GPU within eight minutes, without a network."""
