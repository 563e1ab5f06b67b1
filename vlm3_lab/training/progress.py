# SPDX-License-Identifier: Apache-2.0
"""What a run tells while it goes on."""

from __future__ import annotations

import logging
import time
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


class Clock:
    """Seconds that a run waited for data and that it computed; scoring and saving are neither."""

    def __init__(self, samples_per_step: int):
        self._samples = samples_per_step
        self._waited = self._worked = 0.0
        self._steps = 0
        self._since = time.monotonic()

    def start_waiting(self) -> None:
        """The next step has no data yet."""
        self._since = time.monotonic()

    def start_working(self) -> None:
        """It has."""
        now = time.monotonic()
        self._waited += now - self._since
        self._since = now

    def end_step(self) -> None:
        """It is done."""
        self._worked += time.monotonic() - self._since
        self._steps += 1

    def read(self, log: list[dict[str, float]]) -> dict[str, float]:
        """What to log about the steps since the last call, and about the whole run.

        Args:
            log: of the run so far, in which times of earlier sittings stand.
        """
        seconds, waited = self._waited + self._worked, self._waited
        last: dict[str, float] = next((e for e in reversed(log) if "seconds" in e), {})
        told = {
            "samples_per_s": round(self._steps * self._samples / seconds, 2) if seconds else 0.0,
            "data_wait_share": round(waited / seconds, 3) if seconds else 0.0,
            "seconds": round(last.get("seconds", 0.0) + seconds, 3),
            "waited_seconds": round(last.get("waited_seconds", 0.0) + waited, 3),
        }
        self._waited = self._worked = 0.0
        self._steps = 0
        return told


class ProgressBar(TrainerCallback):
    """A bar on a terminal; lines in the log where there is none."""

    def __init__(self, description: str):
        self._description = description

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        self._bar = tqdm(
            desc=self._description,
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            dynamic_ncols=True,
            # None: only on a terminal.
            disable=None if state.is_world_process_zero else True,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """See the base class."""
        if not logs or "loss" not in logs:
            return
        told = {
            "loss": f"{logs['loss']:.4f}",
            "samples/s": f"{logs['samples_per_s']:.1f}",
            "waiting for data": f"{logs['data_wait_share']:.0%}",
        }
        self._bar.set_postfix(told)
        if self._bar.disable and state.is_world_process_zero:
            words = ", ".join(f"{name} {value}" for name, value in told.items())
            logger.info(
                "%s: step %d/%d, %s", self._description, state.global_step, state.max_steps, words
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        self._bar.close()
