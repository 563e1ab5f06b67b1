from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Before the first rclpy.init: nobody outside of this run is heard or disturbed. Linux leaves the
# ports of domains 1 to 101 free.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


# How long an example takes says more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    yield
    rclpy.try_shutdown()
