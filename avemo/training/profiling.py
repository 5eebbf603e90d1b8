"""A profile of some training steps for XProf, TensorBoard's profiler."""

import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from media.errors import UserError

logger = logging.getLogger(__name__)
WARM_UP = 2  # steps: the first compiles, the second may still wait for the first


class Profile:
    """Profiles `steps` steps of a run, from the third step of this process on; 0: none.

    Args:
      workdir: the run folder; the profile goes to `profile/` in it.
      steps: how many steps (`config.profile`).
      start: the step at which this process begins.

    Raises:
      UserError: a negative number, or a run folder that is not local.
    """

    def __init__(self, workdir: epath.Path, steps: int, start: int):
        if steps < 0:
            raise UserError(f"profile is {steps}: it is the number of steps to profile, 0 for none.")
        if steps and "://" in str(workdir):
            raise UserError(
                f"profile={steps} needs a local --workdir, not {workdir}: profiles are written to local disks."
            )
        self._folder, self._first, self._last = workdir / "profile", start + WARM_UP, start + WARM_UP + steps - 1
        self._steps, self._running = steps, False

    def run(self, number: int, step: Callable, *arguments: Any) -> Any:
        """Calls `step(*arguments)`, the step after `number` steps."""
        if self._steps and number == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            out = step(*arguments)
        if self._running and number == self._last:
            jax.block_until_ready(out)
            self.close()
        return out

    def close(self) -> None:
        """Ends the profile if it is still running, in a run that is shorter than it."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            logger.info("steps from %d on are profiled in %s.", self._first + 1, self._folder)
