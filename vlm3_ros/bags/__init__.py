# SPDX-License-Identifier: Apache-2.0
"""Bags without a ROS installation: rosbag2 (mcap, sqlite3) and ROS 1, by `rosbags`."""
