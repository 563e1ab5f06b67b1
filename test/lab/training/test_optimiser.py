# SPDX-License-Identifier: Apache-2.0
"""Muon for matrices and AdamW for the rest, as one optimiser."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vlm3_lab.training.config import OptimiserConfig
from vlm3_lab.training.optimiser import build_optimiser


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = nn.Linear(4, 4)
        self.embed_tokens = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, index):
        return self.out(self.visual(self.embed_tokens(index)))


def step(net, optimiser):
    net(torch.arange(5)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def test_muon_updates_matrices_and_adamw_everything_else():
    torch.manual_seed(0)
    net = Net()
    alone = copy.deepcopy(net)
    config = OptimiserConfig("muon", learning_rate=0.01)
    step(net, build_optimiser(net, config))
    step(
        alone,
        torch.optim.Muon(
            [alone.visual.weight, alone.out.weight],
            lr=0.01,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
    )
    assert torch.equal(net.visual.weight, alone.visual.weight)
    assert torch.equal(net.out.weight, alone.out.weight)
    # AdamW's first step equals the learning rate for every weight, for any gradient.
    bias = net.out.bias - alone.out.bias * (1 - 0.01 * config.weight_decay)
    assert bias.abs().tolist() == pytest.approx([0.01] * 3, rel=1e-3)
    table = net.embed_tokens.weight - alone.embed_tokens.weight * (1 - 0.01 * config.weight_decay)
    assert table.abs().flatten().tolist() == pytest.approx([0.01] * 20, rel=1e-3)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_vision_half_has_its_own_learning_rate(name):
    torch.manual_seed(0)
    net = Net()
    before = copy.deepcopy(net.state_dict())
    step(net, build_optimiser(net, OptimiserConfig(name, vision_rate=0.0)))
    still = {key for key, value in net.state_dict().items() if torch.equal(value, before[key])}
    assert still == {"visual.weight", "visual.bias"}


def test_a_schedule_reaches_both_optimisers_and_a_saved_state_resumes():
    torch.manual_seed(0)
    net = Net()
    config = OptimiserConfig("muon", learning_rate=0.01)
    optimiser = build_optimiser(net, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda count: 0.5**count)
    step(net, optimiser)
    schedule.step()
    assert {group["lr"] for group in optimiser.param_groups} == {0.005}

    twin = copy.deepcopy(net)
    resumed = build_optimiser(twin, config)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert {group["lr"] for group in resumed.param_groups} == {0.005}
    step(net, optimiser)
    step(twin, resumed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
