# SPDX-License-Identifier: Apache-2.0
"""Ablation: the paper's findings, repeated by training small models that differ in one thing."""
