"""Making models: of a round's updates, or of what one participant uploaded in the beginning. Done in a thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nevermined_fl import aggregation
from nevermined_fl.codecs import safetensors
from nevermined_fl.driver.folding import Given, fold
from nevermined_fl.files import size_of, storage
from nevermined_fl.precision import extend

if TYPE_CHECKING:
    from nevermined_fl.driver.metrics import Metrics
    from nevermined_fl.driver.store import Store
    from nevermined_fl.driver.uploads import Uploads
    from nevermined_fl.session import Plan, effects

__all__ = ["Workshop"]


class Workshop:
    """Makes the models of one session. Doing it again after a crash, or after a full disk, is harmless."""

    def __init__(self, plan: Plan, store: Store, uploads: Uploads, metrics: Metrics) -> None:
        self._plan = plan
        self._store = store
        self._uploads = uploads
        self._metrics = metrics
        self._aggregator = aggregation.create(plan.strategy, dict(plan.strategy_options))
        self._prepared: set[str] = set()

    def prepare(self, model: str) -> None:
        """Put beside a model without them the tensors that the strategy carries; its first round needs them.

        No digest says whether what an earlier process left is whole, so each makes it anew.
        """
        path, own, carried = self._store.path(model), self._plan.schema, self._plan.carried()
        if carried == own or model in self._prepared or size_of(path) == safetensors.file_size(carried):
            return
        if self._store.heal(model) and size_of(path) == safetensors.file_size(own):
            with storage("the initial model", safetensors.file_size(carried)):
                extend(path, self._store.extended(model), own, carried)
            self._prepared.add(model)

    def adopt(self, order: effects.Adopt) -> None:
        """Make a participant's upload the initial model."""
        upload = self._uploads.spool(0).path(order.participant, 0, order.update)
        self._store.take_in(upload, order.update)
        self.prepare(order.update)
        self._store.secure(order.update, 0)

    def fold(self, order: effects.Aggregate) -> str:
        """Make a round's model; returns its digest."""
        began = time.monotonic()
        spool, store, number = self._uploads.spool(order.round), self._store, order.round
        self.prepare(order.model_before)
        given = [
            Given(spool.path(who, number, digest), weight, spool.peak(who, number, digest))
            for who, digest, weight in order.updates
        ]
        with storage(f"the model of round {number}", self._needed()):
            digest = fold(
                self._aggregator,
                self._plan.carried(),
                precision=self._plan.precision,
                arithmetic=self._plan.arithmetic,
                members=len(self._plan.members),
                previous=store.previous(order.model_before),
                updates=given,
                into=store.new_model(number),
                change=store.new_delta(number),
                state_before=store.state(number - 1),
                state_after=store.new_state(number),
            )
            store.keep(number, order.model_before, digest)
        self._metrics.folded(time.monotonic() - began)
        return digest

    def _needed(self) -> int:
        """Bytes that a fold writes: the model, its change, and the server's state."""
        carried = self._plan.carried()
        numbers = sum(tensor.size() // safetensors.NUMPY_DTYPES[tensor.dtype].itemsize for tensor in carried)
        changes = 0 if self._plan.precision == "f32" else 6 * numbers
        return safetensors.file_size(carried) + changes + 8 * numbers * len(self._aggregator.STATE)
