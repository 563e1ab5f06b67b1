# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices of a model, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from typing_extensions import override

from vlm3_lab.training.config import OptimiserConfig


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> Optimizer:
    """Build the configured optimiser for all parameters that train."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.name == "adamw":
        return _adamw(_groups(named, config), config)
    matrices = [(name, p) for name, p in named if _is_matrix(name, p)]
    others = [(name, p) for name, p in named if not _is_matrix(name, p)]
    muon = Muon(
        _groups(matrices, config),
        weight_decay=config.weight_decay,
        # Steps as large as AdamW's, so that one learning rate suits both.
        adjust_lr_fn="match_rms_adamw",
    )
    return MuonAdamW(muon, _adamw(_groups(others, config), config))


def _groups(named: list[tuple[str, nn.Parameter]], config: OptimiserConfig) -> list[dict[str, Any]]:
    rate = config.learning_rate
    return [
        {"params": [p for name, p in named if "visual." not in name], "lr": rate},
        {
            "params": [p for name, p in named if "visual." in name],
            "lr": rate * config.vision_rate,
        },
    ]


def _adamw(groups: list[dict[str, Any]], config: OptimiserConfig) -> AdamW:
    return AdamW(groups, betas=(0.9, config.beta2), weight_decay=config.weight_decay)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps vectors to vectors; lookup tables do not."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


class MuonAdamW(Optimizer):
    """Two optimisers as one, as the Trainer and its schedule expect.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; it is not defined for
    vectors. In our trials it learned depth from random weights with fewer views than AdamW.
    """

    def __init__(self, muon: Muon, adamw: AdamW):
        self._parts: tuple[Optimizer, ...] = (muon, adamw)
        super().__init__([p for group in muon.param_groups for p in group["params"]], {})
        # The same dictionaries as in the parts, so that a schedule sets the rates there as well.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()

    @override
    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
