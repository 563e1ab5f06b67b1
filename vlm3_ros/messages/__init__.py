# SPDX-License-Identifier: Apache-2.0
"""Arrays to ROS messages and back, with the message classes of rclpy or of rosbags.

A builder takes a header and returns a message of the same classes; see `classes`. A reader takes
messages of either. Annotations name rclpy's classes and stand for both.
"""
