"""Learning-rate schedules: the factor of the optimizer's rate at each step.

A schedule is a function of the step, from 0, and the number of steps in all; a function of your
own, named by `_target_` in `conf/scheduler/`, is used in the same way.
"""

import math


def linear(step: int, total_steps: int, *, warmup: float) -> float:
    """Rise linearly to 1 over the warm-up, then fall linearly to 0.

    Args:
        step: from 0.
        total_steps: of the phase.
        warmup: fraction of the steps, 0 to 1; at least one step.

    >>> [linear(step, 10, warmup=0.2) for step in (0, 1, 2, 9, 10)]
    [0.5, 1.0, 0.8888888888888888, 0.1111111111111111, 0.0]
    """
    warmup_steps = _warmup_steps(total_steps, warmup)
    falling = (total_steps - step) / max(1, total_steps - warmup_steps + 1)
    return min((step + 1) / warmup_steps, falling)


def cosine(step: int, total_steps: int, *, warmup: float) -> float:
    """Rise linearly to 1 over the warm-up, then fall to 0 along half a cosine
    (Loshchilov & Hutter 2017, "SGDR").

    Args:
        step: from 0.
        total_steps: of the phase.
        warmup: fraction of the steps, 0 to 1; at least one step.

    >>> [round(cosine(step, 10, warmup=0.2), 3) for step in (0, 1, 6, 10)]
    [0.5, 1.0, 0.413, 0.0]
    """
    warmup_steps = _warmup_steps(total_steps, warmup)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps + 1) / max(1, total_steps - warmup_steps + 1)
    return (1 + math.cos(math.pi * progress)) / 2


def constant(step: int, total_steps: int, *, warmup: float) -> float:
    """Rise linearly to 1 over the warm-up, then stay.

    Args:
        step: from 0.
        total_steps: of the phase.
        warmup: fraction of the steps, 0 to 1; at least one step.

    >>> [constant(step, 10, warmup=0.2) for step in (0, 1, 9)]
    [0.5, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / _warmup_steps(total_steps, warmup))


def _warmup_steps(total_steps: int, warmup: float) -> int:
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup={warmup}: give a fraction of the steps, 0 to 1")
    return max(1, round(warmup * total_steps))
