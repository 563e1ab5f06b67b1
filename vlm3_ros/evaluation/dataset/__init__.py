# SPDX-License-Identifier: Apache-2.0
"""Answers and scores on data sets of any format, see `vlm3_ros.datasets`."""
