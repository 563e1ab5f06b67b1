# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: where its time goes, and a bar on the terminal."""

from __future__ import annotations

import logging
import time
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

logger = logging.getLogger(__name__)


class Clock:
    """Seconds of waiting for data and of computation; scoring and saving count as neither."""

    def __init__(self, samples_per_step: int):
        self._samples = samples_per_step
        self._waited = self._worked = 0.0
        self._steps = 0
        self._since = time.monotonic()

    def start_waiting(self) -> None:
        """Start timing the data wait."""
        self._since = time.monotonic()

    def start_working(self) -> None:
        """Start timing the computation."""
        now = time.monotonic()
        self._waited += now - self._since
        self._since = now

    def end_step(self) -> None:
        """Finish the current step."""
        self._worked += time.monotonic() - self._since
        self._steps += 1

    def read(self, log: list[dict[str, float]]) -> dict[str, float]:
        """Values to log about the steps since the last call and about the whole run; reset.

        Args:
            log: of the run so far, with the times of earlier sittings.
        """
        seconds, waited = self._waited + self._worked, self._waited
        last: dict[str, float] = next((e for e in reversed(log) if "seconds" in e), {})
        values = {
            "samples_per_s": round(self._steps * self._samples / seconds, 2) if seconds else 0.0,
            "data_wait_share": round(waited / seconds, 3) if seconds else 0.0,
            "seconds": round(last.get("seconds", 0.0) + seconds, 3),
            "waited_seconds": round(last.get("waited_seconds", 0.0) + waited, 3),
        }
        self._waited = self._worked = 0.0
        self._steps = 0
        return values


class ProgressBar(TrainerCallback):
    """A bar on a terminal; otherwise lines in the log."""

    def __init__(self, description: str):
        self._description = description

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._bar = tqdm(
            desc=self._description,
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            dynamic_ncols=True,
            disable=None if state.is_world_process_zero else True,  # None: only on a terminal
        )

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._bar.update()

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        values = {
            "loss": f"{logs['loss']:.4f}",
            "samples/s": f"{logs['samples_per_s']:.1f}",
            "waiting for data": f"{logs['data_wait_share']:.0%}",
        }
        self._bar.set_postfix(values)
        if self._bar.disable and state.is_world_process_zero:
            words = ", ".join(f"{name} {value}" for name, value in values.items())
            logger.info(
                "%s: step %d/%d, %s", self._description, state.global_step, state.max_steps, words
            )

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._bar.close()
