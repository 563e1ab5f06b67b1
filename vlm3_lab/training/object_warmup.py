# SPDX-License-Identifier: Apache-2.0
"""Warm-up of questions about objects: what is true of the object in each box.

Whether one box holds a taller object than another is one bit about two objects: asked for it and
for metres alone, a small model stayed at chance for tens of thousands of questions. Here the token
that ends each box of a question also tells, through a linear layer that is thrown away afterwards,
how far away that object is and how large. What relations are made of is then at hand, and they are
learned within minutes. Batches of other tasks beside it are asked as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlm3_lab.scenes import View
from vlm3_lab.scenes.objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.mixture import MixedQuestions
from vlm3_lab.training.objects import ObjectQuestions
from vlm3_lab.training.packing import IGNORE, PackedSample, Packer, answer_losses, packed_hidden
from vlm3_lab.training.samples import DepthQuestions
from vlm3_lab.training.warmup import known_error
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.objects import ObjectsWording, object_question
from vlm3_ros.language.prompts import PromptSet
from vlm3_ros.tasks.objects import (
    OBJECTS,
    Question,
    Relation,
    question_boxes,
    question_template,
)
from vlm3_ros.tasks.task import ModelViews, true_pairs

FACTS = 7
"""See `object_facts`."""

LEAST_METRES = 0.1
"""Ahead of the camera, for what begins beside or behind it: logarithms need some."""

WEIGHTS = {"answers": 1.0, "relations": 0.3, "facts": 1.0}
"""Of the parts of the loss. Relations are one token of many, and would weigh little."""


def object_facts(thing: SeenObject, unified: UnifiedCamera) -> NDArray[np.float64]:
    """What is true of an object, in numbers of about 1.

    Args:
        unified: how its view enters the model, which sees depth at the unified focal length.

    Returns:
        Natural logarithm of metres ahead to its centre; how far that lies to the right and how far
        up, as shares of that; logarithms of its width, of its height, of metres ahead to where it
        begins, and of its size, the cube root of its volume. Shape (FACTS,).
    """
    right, up, ahead = thing.centre
    ahead = max(ahead, LEAST_METRES)
    seen = 1 / float(unified.metric_depth(1.0))
    lengths = (
        seen * ahead,
        thing.width,
        thing.height,
        seen * max(thing.nearest, LEAST_METRES),
        thing.volume ** (1 / 3),
    )
    far, *others = np.log(lengths)
    return np.array([far, right / ahead, up / ahead, *others])


def region_ends(question: Question, views: ModelViews, prompts: PromptSet) -> list[int]:
    """Behind how many characters of a question the region of each of its objects ends, a first."""
    wording = prompts[ObjectsWording]
    template = question_template(question, wording)
    boxes = question_boxes(question, views)
    # The question as far as the region: the other one may stand before it.
    starts = [template[: template.index(name) + len(name)] for name in ("{a}", "{b}")[: len(boxes)]]
    return [len(object_question(wording, start, boxes, prompts.text_range)) for start in starts]


@dataclass(frozen=True)
class ObjectSample(PackedSample):
    """A view with questions about its objects, and what is true of these.

    `ends`: of every box in a question, the question and the token in its block that holds the last
    character of the box's region; below 0 from the end of the prefix, where all questions start
    with the same box. Shape (boxes, 2). `facts`: of the objects in them, shape (boxes, FACTS).
    `decisions`: of every relation, the question and the token in its block that tells yes from no,
    shape (relations, 2).
    """

    ends: NDArray[np.int64]
    facts: NDArray[np.float64]
    decisions: NDArray[np.int64]


class ObjectFacts(ObjectQuestions):
    """Packed questions about objects, with what is true of each object."""

    def sample(self, scene: View, rng: np.random.Generator) -> ObjectSample:
        """See the base class."""
        views, prompts = self.model_views(scene), self._profile.prompts
        (unified,) = views.cameras
        things = seen_objects(scene)
        asked = true_answers(things, rng)[: self._data.object_questions]
        questions, truths = [question for question, _ in asked], [truth for _, truth in asked]
        pairs = true_pairs(OBJECTS, prompts, views, questions, truths)
        packer = Packer(self._processor)
        packed = packer.pack([unify_image(scene.image, unified)], pairs)
        facts = {tuple(thing.box.tolist()): object_facts(thing, unified) for thing in things}
        decisive = _decisive_token(packer, prompts)
        ends, told, decisions = [], [], []
        for index, ((question, _), (text, _), labels) in enumerate(
            zip(asked, pairs, packed.labels, strict=True)
        ):
            own = int((labels == IGNORE).sum())
            token_ends = packer.token_ends(text)
            tokens = np.searchsorted(token_ends, region_ends(question, views, prompts))
            ends += [(index, own - len(token_ends) + token) for token in tokens]
            told += [facts[box] for box in (question.a, question.b) if box is not None]
            if isinstance(question, Relation):
                decisions.append((index, own + decisive))
        return ObjectSample(
            **vars(packed),
            ends=np.array(ends, np.int64).reshape(-1, 2),
            facts=np.array(told).reshape(-1, FACTS),
            decisions=np.array(decisions, np.int64).reshape(-1, 2),
        )


def _decisive_token(packer: Packer, prompts: PromptSet) -> int:
    """The first token of an answer that tells yes from no."""
    wording = prompts[ObjectsWording]
    answers = (packer.answer_tokens(text) for text in (wording.yes, wording.no))
    return next(i for i, (yes, no) in enumerate(zip(*answers, strict=False)) if yes != no)


class ObjectWarmup(MixedQuestions):
    """Batches of questions about objects with facts, and of depth as ever."""

    streams: ClassVar = {"depth": DepthQuestions, "objects": ObjectFacts}


def collate_objects(packer: Packer, samples: Sequence[PackedSample]) -> dict[str, Any]:
    """A batch as keyword arguments of `ObjectHead`; samples of other tasks have no facts."""
    batch = packer.collate(samples)
    layout = batch["layout"]
    ends, facts = [np.empty((0, 2), np.int64)], [np.empty((0, FACTS))]
    is_decision = torch.zeros(batch["labels"].shape, dtype=torch.bool)
    for row, sample in enumerate(samples):
        if not isinstance(sample, ObjectSample):
            continue
        question, token = sample.ends.T
        column = np.where(
            token < 0,
            len(sample.prefix_ids) + token,
            layout.prefix + question * layout.block + token,
        )
        ends.append(np.stack([np.full_like(column, row), column], axis=-1))
        facts.append(sample.facts)
        question, token = sample.decisions.T
        is_decision[row, layout.prefix + question * layout.block + token] = True
    return {
        "batch": batch,
        "ends": torch.from_numpy(np.concatenate(ends)),
        "facts": torch.from_numpy(np.concatenate(facts)).float(),
        "is_decision": is_decision,
    }


class ObjectHead(nn.Module):
    """A model with the linear layer that reads an object's facts where its box ends."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.read = nn.Linear(model.config.text_config.hidden_size, FACTS)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(
        self, batch: dict[str, Any], ends: Tensor, facts: Tensor, is_decision: Tensor
    ) -> dict[str, Tensor]:
        """The loss and its parts, which a batch has: cross entropy of answers, and of the tokens
        among them that tell yes from no, and mean absolute error of facts.

        Args:
            batch: of `Packer.collate`.
            ends: row and column in it of each token that facts are read from, shape (n, 2).
            facts: shape (n, FACTS).
            is_decision: which of its labels tell yes from no, of the shape of them.
        """
        hidden = packed_hidden(self.model, batch)
        labels = batch["labels"]
        losses = answer_losses(self.model, hidden, labels)
        decisions = losses[is_decision[:, 1:][labels[:, 1:] != IGNORE]]
        read = self.read(hidden[ends[:, 0], ends[:, 1]]).float()
        parts = {
            "answers": losses.mean(),
            "relations": decisions.sum() / max(len(decisions), 1),
            "facts": known_error(read, facts),
        }
        loss = torch.stack([weight * parts[name] for name, weight in WEIGHTS.items()]).sum()
        had = {"answers": len(losses), "relations": len(decisions), "facts": len(facts)}
        return {"loss": loss, **{name: part for name, part in parts.items() if had[name]}}
