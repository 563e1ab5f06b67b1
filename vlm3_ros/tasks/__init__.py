# SPDX-License-Identifier: Apache-2.0
"""What a user wants from a model: images and cameras in, metric arrays out."""
