# SPDX-License-Identifier: Apache-2.0
"""Warm-up of questions about objects: distance and size of the object in each box.

Whether one box holds a taller object than another is one bit about two objects. Asked only for
that and for metres, a small model stayed at chance for tens of thousands of questions. Here a
linear layer, discarded afterwards, also reads distance and size of the object from the token that
ends its box in a question. Relations follow from these facts and are then learned within minutes.
Batches of other tasks are asked as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from vlm3_lab.scenes.seen_objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.packing import IGNORE, PackedSample, Packer, answer_losses, packed_hidden
from vlm3_lab.training.sources import MixedScenes, Sources
from vlm3_lab.training.tasks.objects import Questions as ObjectQuestions
from vlm3_lab.training.tasks.objects import with_one_phrasing
from vlm3_lab.training.warmups.dense_depth import known_error
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import PromptSet
from vlm3_ros.language.wordings.objects import ObjectsWording, object_question
from vlm3_ros.tasks.objects import (
    OBJECTS,
    Question,
    Relation,
    question_boxes,
    question_template,
)
from vlm3_ros.tasks.task import ModelViews, true_pairs

FACTS = 7
"""Number of facts per object, see `object_facts`."""

LEAST_METRES = 0.1
"""Least distance ahead of the camera, also for objects next to or behind it: for logarithms."""

WEIGHTS = {"answers": 1.0, "relations": 0.3, "facts": 1.0}
"""Weights of the parts of the loss. Relations are a separate part: among all answer tokens
their single token would weigh little."""


def object_facts(thing: SeenObject, unified: UnifiedCamera) -> NDArray[np.float64]:
    """Distance, direction and size of an object, in numbers of about 1.

    Args:
        unified: how its view enters the model, which sees depth at the unified focal length.

    Returns:
        Shape (FACTS,): natural logarithm of the metres ahead to the centre; metres to the right
        and up, divided by the metres ahead; natural logarithms of width, height, metres ahead to
        the nearest point, and the cube root of the volume.
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
    """The number of characters of a question up to the end of each object's region, a first."""
    wording = prompts[ObjectsWording]
    template = question_template(question, wording)
    boxes = question_boxes(question, views)
    # The question up to the region; the other object's region may come first.
    starts = [template[: template.index(name) + len(name)] for name in ("{a}", "{b}")[: len(boxes)]]
    return [len(object_question(wording, start, boxes, prompts.text_range)) for start in starts]


@dataclass(frozen=True)
class ObjectSample(PackedSample):
    """A view with questions about its objects, and facts about these objects.

    `ends`: for every box in a question, the index of the question and of the token in its block
    that holds the last character of the box's region, shape (boxes, 2). The token is negative,
    from the end of the prefix, if all questions start with the same box. `facts`: of the objects
    in the boxes, shape (boxes, FACTS). `decisions`: for every relation, the index of the question
    and of the token in its block that distinguishes yes from no, shape (relations, 2).
    """

    ends: NDArray[np.int64]
    facts: NDArray[np.float64]
    decisions: NDArray[np.int64]


class ObjectFacts(ObjectQuestions):
    """Packed questions about objects, with facts about each object."""

    @override
    @classmethod
    def scenes(cls, sources: Sources) -> MixedScenes[View]:
        return sources.views(
            "the warm-up of objects",
            "frames with boxes of objects and a pose, which its facts are made from",
            lambda contents: contents.has_objects & contents.has_pose,
        )

    @override
    def is_enough(self, scene: View) -> bool:
        return len(seen_objects(scene)) >= 2

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> ObjectSample:
        views = self._model.views(scene)
        (unified,) = views.cameras
        things = seen_objects(scene)
        asked = true_answers(things, rng)[: self._data.object_questions]
        questions, truths = [question for question, _ in asked], [truth for _, truth in asked]
        prompts = with_one_phrasing(self._model.profile.prompts, rng)
        pairs = true_pairs(OBJECTS, prompts, views, questions, truths)
        packer = self._model.packer
        packed = packer.pack([unify_image(scene.image, unified)], pairs)
        facts = {tuple(thing.box.tolist()): object_facts(thing, unified) for thing in things}
        ends, facts_at_ends, decisions = [], [], []
        for index, ((question, _), (text, _), labels) in enumerate(
            zip(asked, pairs, packed.labels, strict=True)
        ):
            own = int((labels == IGNORE).sum())
            token_ends = packer.token_ends(text)
            tokens = np.searchsorted(token_ends, region_ends(question, views, prompts))
            ends += [(index, own - len(token_ends) + token) for token in tokens]
            facts_at_ends += [facts[box] for box in (question.a, question.b) if box is not None]
            if isinstance(question, Relation):
                decisive = _decisive_token(packer, prompts, views, question)
                decisions.append((index, own + decisive))
        return ObjectSample(
            **vars(packed),
            ends=np.array(ends, np.int64).reshape(-1, 2),
            facts=np.array(facts_at_ends).reshape(-1, FACTS),
            decisions=np.array(decisions, np.int64).reshape(-1, 2),
        )


def _decisive_token(
    packer: Packer, prompts: PromptSet, views: ModelViews, question: Relation
) -> int:
    """Index of the first token of an answer that distinguishes yes from no."""
    both = OBJECTS.true_answers(prompts[ObjectsWording], views, [question] * 2, [True, False])
    answers = map(packer.answer_tokens, both)
    return next(i for i, (yes, no) in enumerate(zip(*answers, strict=False)) if yes != no)


def collate(packer: Packer, samples: Sequence[PackedSample]) -> dict[str, Any]:
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
    """A model with a linear layer that reads an object's facts where its box ends."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.read = nn.Linear(model.config.text_config.hidden_size, FACTS)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(
        self, batch: dict[str, Any], ends: Tensor, facts: Tensor, is_decision: Tensor
    ) -> dict[str, Tensor]:
        """The loss and those of its parts that the batch has.

        The parts are cross entropy of answers, cross entropy of the answer tokens that distinguish
        yes from no, and mean absolute error of facts.

        Args:
            batch: from `Packer.collate`.
            ends: row and column in the batch of each token to read facts from, shape (n, 2).
            facts: shape (n, FACTS).
            is_decision: mask of the labels that distinguish yes from no, of the labels' shape.
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
        counts = {"answers": len(losses), "relations": len(decisions), "facts": len(facts)}
        return {"loss": loss, **{name: part for name, part in parts.items() if counts[name]}}
