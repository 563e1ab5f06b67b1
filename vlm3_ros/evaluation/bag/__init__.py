# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a bag."""
