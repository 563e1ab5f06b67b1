# SPDX-License-Identifier: Apache-2.0
"""Warm-up of two-view tasks: where every token of the second view lies in the first one.

A few numbers in text are a weak teacher for the relation of two views: asked only for the motion,
a small model learned nothing from tens of thousands of pairs. Here linear layers, discarded
afterwards, also read from each token of the second view where the first view shows its cells, and
from the token after both images the motion. Dense depth is trained along, so that the vision half
does not forget it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from typing_extensions import override

from vlm3_lab.scenes.view_pairs import GAPS
from vlm3_lab.training.packing import PackedSample, Packer, packed_hidden
from vlm3_lab.training.samples import PairSamples
from vlm3_lab.training.warmups.dense_depth import (
    CELLS,
    WAVES,
    cell_depth,
    known_error,
    token_cells,
    wave_code,
)
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.motion import Transform, seen_motion
from vlm3_ros.tasks.depth import uniform_grid

FLOW_CELLS = 4
"""Cells along each side of an image token whose match is learned."""

DISTANCE_UNIT, ANGLE_UNIT = 0.3, np.radians(10)
"""Units of a motion, in metres and radians, that make its numbers about 1."""

WIDE_GAPS = (6, GAPS[1])
"""Views half a second to two seconds apart. In closer pairs most of the motion is below a tenth of
a token, and nothing is learned from them at first."""

WEIGHTS = {
    "attention": 1.0,
    "flow": 1.0,
    "match_places": 0.5,
    "motion": 0.2,
    "log_depth": 0.3,
}
"""Weights of the parts of the loss. The motion weighs little: until matches are known it is noise,
and Muon's steps do not get shorter for it."""

MATCHING_LAYER, MATCHING_HEADS = 1, 2
"""The decoder layer whose first heads learn to look at the match of a token, and their number. The
layer before can prepare for it, two layers remain to use it."""


def dense_flow(
    pair: ViewPair, first: UnifiedCamera, second: UnifiedCamera, token: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the first view shows the cells of the second one.

    Args:
        token: side of an image token, px.

    Returns:
        The movement of each cell from the second to the first view, in tokens, shape (tokens,
        2 * FLOW_CELLS**2), and the place of each token's centre in the first view, as shares of
        its sides, shape (tokens, 2). NaN where the first view does not show it.
    """
    view = second.view
    columns, rows = view.width // token, view.height // token
    cells = uniform_grid(view, columns * FLOW_CELLS, rows * FLOW_CELLS)
    moved = _matched(pair, first, second, cells)[:, :2]
    moved = moved.reshape(rows * FLOW_CELLS, columns * FLOW_CELLS, 2)
    flow = token_cells(moved, FLOW_CELLS) / token
    places = _matched(pair, first, second, uniform_grid(view, columns, rows))[:, 2:]
    return flow, (places + 0.5) / (first.view.width, first.view.height)


def _matched(
    pair: ViewPair, first: UnifiedCamera, second: UnifiedCamera, pixels2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Flow of pixels of the second view to the first, and their place there, shape (n, 4)."""
    camera = pair.second.camera
    source = np.round(second.to_source(pixels2))
    inside = ((source >= 0) & (source < (camera.width, camera.height))).all(axis=1)
    matches = pair.exchanged().matches(source[inside])
    flow_and_places = np.full((len(pixels2), 4), np.nan)
    places = first.to_view(matches)
    flow_and_places[inside] = np.concatenate(
        [places - second.to_view(source[inside]), places], axis=1
    )
    return flow_and_places


def surrounding_tokens(
    places: NDArray[np.float64], columns: int, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The four tokens of a view around each place, and their weights for linear interpolation.

    Args:
        places: (x, y) as shares of the view's sides, shape (n, 2), NaN where unknown.
        columns, rows: tokens of the view.

    Returns:
        Indices and weights, shape (n, 4) each; the weights of an unknown place are NaN.
    """
    at = places * (columns, rows) - 0.5
    x, y = np.clip(at, 0, (columns - 1, rows - 1)).T
    left, top = (np.minimum(np.nan_to_num(a).astype(int), n) for a, n in ((x, columns), (y, rows)))
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    dx, dy = x - left, y - top
    above, below = top * columns, bottom * columns
    tokens = np.stack([above + left, above + right, below + left, below + right], axis=-1)
    weights = np.stack([(1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy], axis=-1)
    return tokens, weights


def motion_code(T_cam1_cam2: Transform, first: UnifiedCamera) -> NDArray[np.float64]:
    """The motion as the model sees it, in `DISTANCE_UNIT` and `ANGLE_UNIT`, shape (6,)."""
    seen = seen_motion(T_cam1_cam2, first)
    turn = Rotation.from_matrix(seen[:3, :3]).as_rotvec()
    return np.concatenate([seen[:3, 3] / DISTANCE_UNIT, turn / ANGLE_UNIT])


@dataclass(frozen=True)
class DensePairSample:
    """A pair without questions, and the truth for its tokens; NaN where unknown.

    `flow`, `match_places`: of the second view's tokens, see `dense_flow` and `wave_code`.
    `match_tokens`, `match_weights`: the tokens of the first view around that place, see
    `surrounding_tokens`. `motion`: see `motion_code`. `log_depth`: as in
    `dense_depth.DenseSample`, for the tokens of both views. `is_second`: mask of the tokens of the
    second view.
    """

    packed: PackedSample
    flow: Tensor
    match_places: Tensor
    match_tokens: Tensor
    match_weights: Tensor
    motion: Tensor
    log_depth: Tensor
    is_second: Tensor


class DensePairs(PairSamples[DensePairSample]):
    """Pairs with the truth for all their tokens."""

    gaps = WIDE_GAPS

    @override
    def sample(self, scene: ViewPair, rng: np.random.Generator) -> DensePairSample:
        first, second = self._model.unified(scene.first), self._model.unified(scene.second)
        packer = self._model.packer
        image_processor = packer.image_processor
        token = image_processor.patch_size * image_processor.merge_size
        flow, places = dense_flow(scene, first, second, token)
        depths = [
            token_cells(cell_depth(view, unified, token // CELLS)[..., None], CELLS)
            for view, unified in ((scene.first, first), (scene.second, second))
        ]
        motion = motion_code(scene.T_cam1_cam2, first)
        if not scene.is_metric:
            motion[:3] = np.nan
        tokens, weights = surrounding_tokens(
            places, first.view.width // token, first.view.height // token
        )
        images = [unify_image(scene.first.image, first), unify_image(scene.second.image, second)]
        return DensePairSample(
            packed=packer.pack(images, ()),
            flow=torch.from_numpy(flow).float(),
            match_places=wave_code(torch.from_numpy(places).float()),
            match_tokens=torch.from_numpy(tokens),
            match_weights=torch.from_numpy(weights).float(),
            motion=torch.from_numpy(motion[None]).float(),
            log_depth=torch.from_numpy(np.concatenate(depths)).log(),
            is_second=torch.arange(sum(map(len, depths))) >= len(depths[0]),
        )

    @override
    def length(self, sample: DensePairSample) -> int:
        return len(sample.packed.prefix_ids)


def collate(packer: Packer, samples: list[DensePairSample]) -> dict[str, Any]:
    """A batch as keyword arguments of `PairHead`."""
    dense = [part.name for part in fields(DensePairSample) if part.name != "packed"]
    return {
        "batch": packer.collate([sample.packed for sample in samples]),
        **{name: torch.cat([getattr(sample, name) for sample in samples]) for name in dense},
    }


class PairHead(nn.Module):
    """A model with linear layers that read matches, motion and depth from its tokens."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        width = model.config.text_config.hidden_size
        sizes = {
            "flow": 2 * FLOW_CELLS**2,
            "match_places": 4 * len(WAVES),
            "motion": 6,
            "log_depth": CELLS**2,
        }
        self.read = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})

    def forward(
        self,
        batch: dict[str, Any],
        flow: Tensor,
        match_places: Tensor,
        match_tokens: Tensor,
        match_weights: Tensor,
        motion: Tensor,
        log_depth: Tensor,
        is_second: Tensor,
    ) -> dict[str, Tensor]:
        """The loss and its parts: of the attention, and mean absolute errors of the readings."""
        seen: list[Tensor] = []
        hook = self.model.model.visual.register_forward_hook(
            lambda module, inputs, output: seen.append(output.pooler_output)
        )
        scores: list[Tensor] = []
        try:
            hidden = packed_hidden(self.model, {**batch, "scores_of_prefix": scores})
        finally:
            hook.remove()
        is_image = batch["input_ids"] == self.model.config.image_token_id
        tokens = hidden[is_image][is_second]
        rows = torch.arange(len(motion), device=hidden.device)
        after_images = hidden[rows, batch["prefix_lengths"] - 1]
        losses = {
            "attention": _attention_loss(
                scores[MATCHING_LAYER], is_image, is_second, match_tokens, match_weights
            ),
            "flow": self._error("flow", tokens, flow),
            "match_places": self._error("match_places", tokens, match_places),
            "motion": self._error("motion", after_images, motion),
            "log_depth": self._error("log_depth", seen[0], log_depth),
        }
        loss = torch.stack([weight * losses[name] for name, weight in WEIGHTS.items()]).sum()
        return {"loss": loss, **losses}

    def _error(self, name: str, tokens: Tensor, truth: Tensor) -> Tensor:
        return known_error(self.read[name](tokens).float(), truth)


def _attention_loss(
    scores: Tensor, is_image: Tensor, is_second: Tensor, tokens: Tensor, weights: Tensor
) -> Tensor:
    """Cross entropy of the matching heads' attention over the tokens of the first view."""
    is_image = is_image[:, : scores.shape[-1]]
    of_first, of_second = torch.zeros_like(is_image), torch.zeros_like(is_image)
    of_first[is_image], of_second[is_image] = ~is_second, is_second
    start = of_first.int().argmax(dim=1)[:, None].expand_as(of_second)[of_second]
    known = torch.isfinite(weights).all(dim=1)
    target = (tokens + start[:, None])[known][:, None].expand(-1, MATCHING_HEADS, -1)
    visible = of_first[:, None].expand(-1, is_image.shape[1], -1)[of_second][known]
    looks = scores[:, :MATCHING_HEADS].transpose(1, 2)[of_second][known].float()
    looks = looks.masked_fill(~visible[:, None], -torch.inf).log_softmax(dim=-1)
    return -(looks.gather(-1, target) * weights[known][:, None]).sum(-1).mean()
