# SPDX-License-Identifier: Apache-2.0
"""Warm-up of a vision half that starts from random weights.

The authors start from a vision language model that has seen the world. A small model with random
weights has not, and numbers in text are a weak teacher: they cover only a few dozen points of an
image. So before it learns to answer, its vision half learns the depth of every cell of a view at
once, through a linear layer that is discarded afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from vlm3_lab.training.packing import still_frames
from vlm3_lab.training.samples import ViewSamples
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.depth import uniform_grid

CELLS = 8
"""Cells along each side of an image token whose depth is learned."""

WAVES = (0.5, 1.0, 2.0)
"""Periods, as shares of the view's side, of the waves that encode a token's place."""

PLACE_WEIGHT = 0.2
"""Weight in the loss of a token's place, which the coordinates in questions will refer to."""


@dataclass(frozen=True)
class DenseSample:
    """A view as the image processor returns it, and the truth for its tokens.

    `log_depth`: natural logarithm of metres at the unified focal length, shape (tokens,
    CELLS * CELLS), NaN where unknown. `places`: sine and cosine of each of `WAVES` along
    both sides, shape (tokens, 4 * len(WAVES)).
    """

    pixel_values: Tensor
    image_grid_thw: Tensor
    log_depth: Tensor
    places: Tensor


class DenseDepth(ViewSamples[DenseSample]):
    """Whole views with the depth of all their cells."""

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> DenseSample:
        unified = self._model.unified(scene)
        image_processor = self._model.packer.image_processor
        pixels = image_processor(
            [unify_image(scene.image, unified)], return_tensors="pt", do_resize=False
        )
        cell = image_processor.patch_size * image_processor.merge_size // CELLS
        depth = cell_depth(scene, unified, cell)
        rows, columns = (n // CELLS for n in depth.shape)
        v, u = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        places = torch.from_numpy(np.stack([u / columns, v / rows], axis=-1)).float()
        return DenseSample(
            still_frames(pixels["pixel_values"], image_processor),
            pixels["image_grid_thw"],
            torch.from_numpy(token_cells(depth[..., None], CELLS)).log(),
            wave_code(places),
        )

    @override
    def length(self, sample: DenseSample) -> int:
        return len(sample.log_depth)


def cell_depth(view: View, unified: UnifiedCamera, cell: int) -> NDArray[np.float32]:
    """Depth at the centres of cells of `cell` x `cell` pixels of the unified view.

    Returns:
        Metres at the unified focal length, shape (height / cell, width / cell), NaN in the sky
        and on padding; all NaN if the view has no metric scale.
    """
    columns, rows = unified.view.width // cell, unified.view.height // cell
    centres = uniform_grid(unified.view, columns, rows).reshape(rows, columns, 2)
    u, v = np.round(unified.to_source(centres)).astype(int).transpose(2, 0, 1)
    inside = (u >= 0) & (u < view.camera.width) & (v >= 0) & (v < view.camera.height)
    depth = np.full(inside.shape, np.nan, np.float32)
    depth[inside] = view.depth[v[inside], u[inside]] / unified.metric_depth(1.0)
    depth[np.isinf(depth) | (not view.is_metric)] = np.nan
    return depth


def token_cells(cells: NDArray[Any], side: int) -> NDArray[Any]:
    """Group the values of cells by token.

    Args:
        cells: shape (rows * side, columns * side, n).
        side: cells along each side of a token.

    Returns:
        Shape (rows * columns, side * side * n).
    """
    rows, columns = (length // side for length in cells.shape[:2])
    grouped = cells.reshape(rows, side, columns, side, -1).swapaxes(1, 2)
    return np.ascontiguousarray(grouped.reshape(rows * columns, -1))


def wave_code(places: Tensor) -> Tensor:
    """Sine and cosine of each of `WAVES` along both sides, shape (n, 4 * len(WAVES)).

    Args:
        places: (x, y) as shares of the view's sides, shape (n, 2).
    """
    waves = 2 * torch.pi * torch.tensor(WAVES)
    phases = (places[:, :, None] * waves).flatten(1)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def collate(samples: list[DenseSample]) -> dict[str, Tensor]:
    """A batch as keyword arguments of `DenseHead`."""
    return {
        name: torch.cat([getattr(sample, name) for sample in samples])
        for name in ("pixel_values", "image_grid_thw", "log_depth", "places")
    }


def known_error(read: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error where the truth is finite; 0 if it is nowhere. Shapes are equal."""
    known = torch.isfinite(truth)
    error = (read - torch.nan_to_num(truth)).abs()
    return error[known].sum() / known.sum().clamp(min=1)


class DenseHead(nn.Module):
    """A vision half with a linear layer that reads depth and place from its tokens."""

    def __init__(self, visual: nn.Module, width: int):
        super().__init__()
        self.visual = visual
        self.read = nn.Linear(width, CELLS**2 + 4 * len(WAVES))
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(
        self, pixel_values: Tensor, image_grid_thw: Tensor, log_depth: Tensor, places: Tensor
    ) -> dict[str, Tensor]:
        """Mean absolute error of log depth plus weighted mean squared error of the place."""
        tokens = self.visual(pixel_values, grid_thw=image_grid_thw).pooler_output
        read = self.read(tokens if isinstance(tokens, Tensor) else torch.cat(tokens)).float()
        depth_loss = known_error(read[:, : CELLS**2], log_depth)
        misplaced = (read[:, CELLS**2 :] - places).square().mean()
        return {"loss": depth_loss + PLACE_WEIGHT * misplaced}


def vision_head(model: Any) -> DenseHead:
    """The head on the vision half of a whole model."""
    return DenseHead(model.model.visual, model.config.text_config.hidden_size)
