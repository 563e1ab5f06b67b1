# SPDX-License-Identifier: Apache-2.0
"""The reliability suite (`make soak`): real nodes under load, and under every fault.

Each node runs in its own process and is reached over DDS only. `table` lists the faults;
`load` is the long run.
"""
