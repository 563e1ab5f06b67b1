# SPDX-License-Identifier: Apache-2.0
"""Arrays to ROS messages and back."""
