"""Making: from the update that came through the gate to the one that travels and is kept.

With a precision below f32 what travels is the change against the round's model, and what rounding left out of it, the
residual, is added to the next change (error feedback). With SCAFFOLD the participant's control variate grows by the
change of it that the update carries. Both go on from the basis, the last update that the coordinator counted: what a
refused one left behind was never given to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl import precision
from nevermined_fl.participant.control import add_change
from nevermined_fl.participant.keep import Kept

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.messages import Train
    from nevermined_fl.participant.keep import Keep
    from nevermined_fl.session import Plan
    from nevermined_fl.trainers.child import Trained

__all__ = ["finish"]


def finish(
    keep: Keep, plan: Plan, task: Train, *, basis: Kept | None, model: Path, whole: Path, trained: Trained
) -> Kept:
    """Make the update of ``whole``, what came through the gate, and keep it."""
    update = keep.path(task.round, task.seed, "update")
    control = residual = ""
    if plan.carried() != plan.schema:
        into = keep.path(task.round, task.seed, "control")
        control = add_change(keep.left(basis, "control"), whole, into, plan)
    digest = trained.digest
    if plan.precision == "f32":
        whole.replace(update)
    else:
        made = precision.encode_change(
            model,
            whole,
            residual_in=keep.left(basis, "residual"),
            residual_out=keep.path(task.round, task.seed, "residual"),
            into=update,
            schema=plan.carried(),
            precision=plan.precision,
        )
        digest, residual = made.change, made.residual
    kept = Kept(
        task.round, task.model, task.seed, digest, trained.examples, trained.metrics, residual=residual, control=control
    )
    keep.add(kept, basis)
    return kept
