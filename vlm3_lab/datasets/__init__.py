# SPDX-License-Identifier: Apache-2.0
"""Training sets made of recordings: their format, how they are made, and what is in them."""
