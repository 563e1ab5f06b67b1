# SPDX-License-Identifier: Apache-2.0
"""Cameras and motions: the geometry of the method, without ROS and without a model."""
