# SPDX-License-Identifier: Apache-2.0
"""Training sets made from recordings: their format, making them, and reports on their content."""
