# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: the questions of a checkpoint and the values in its answers."""
