# SPDX-License-Identifier: Apache-2.0
"""How good the answers are: metrics, evaluations, pictures."""
