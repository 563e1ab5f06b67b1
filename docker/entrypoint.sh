#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Source ROS and this package, then run the command.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/vlm3/setup.bash
exec "$@"
