# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was asked and answered."""
