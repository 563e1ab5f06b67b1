# SPDX-License-Identifier: Apache-2.0
"""Who answers questions: one small protocol and its implementations."""
