# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices of a model, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from vlm3_lab.training.config import OptimiserConfig


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> Optimizer:
    """The optimiser that `config.name` asks for, over all parameters that train."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.name == "adamw":
        return _adamw(_groups(named, config), config)
    matrices = [(name, p) for name, p in named if _is_matrix(name, p)]
    others = [(name, p) for name, p in named if not _is_matrix(name, p)]
    muon = Muon(
        _groups(matrices, config),
        weight_decay=config.weight_decay,
        # Steps as large as AdamW's: one learning rate means the same to both.
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
    """Whether a parameter maps vectors to vectors; tables that are looked up in do not."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


class MuonAdamW(Optimizer):
    """Two optimisers as one, as the Trainer and its schedule expect it.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. From random weights it
    learned depth from fewer views than AdamW in our trials; it is not defined for vectors.
    """

    def __init__(self, muon: Muon, adamw: AdamW):
        self._parts: tuple[Optimizer, ...] = (muon, adamw)
        super().__init__([p for group in muon.param_groups for p in group["params"]], {})
        # The very dictionaries of the parts: a schedule that sets a rate here sets it there.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of both."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
