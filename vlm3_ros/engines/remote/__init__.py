# SPDX-License-Identifier: Apache-2.0
"""The remote engine: a model behind a server with OpenAI's chat completions."""
