# SPDX-License-Identifier: Apache-2.0
"""The laboratory: makes data, trains models and studies them. vlm3_ros never imports it."""
