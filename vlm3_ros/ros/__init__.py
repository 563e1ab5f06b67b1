# SPDX-License-Identifier: Apache-2.0
"""What ROS needs: messages to arrays and back, parameters, diagnostics, the lifecycle base node."""
