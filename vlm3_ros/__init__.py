# SPDX-License-Identifier: Apache-2.0
"""A vision language model as a metric 3D sensor for ROS 2 robots."""
