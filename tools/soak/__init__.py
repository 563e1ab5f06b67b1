# SPDX-License-Identifier: Apache-2.0
"""The reliability suite (`make soak`): real nodes under load, and everything that can go wrong.

Each node runs in a process of its own and is reached over DDS only. `table` lists what is done to
it; `load` is the long run.
"""
