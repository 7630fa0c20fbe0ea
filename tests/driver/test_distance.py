"""How far an update moves the model, also where squares of its changes leave what float64 holds."""

import numpy as np
import pytest

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver.distance import distance


@pytest.mark.parametrize(
    ("moved", "expected"),
    [(1e160, 2e160), (-1e-170, 2e-170), (5e-324, 1e-323), (1.7e308, np.inf), (0.0, 0.0), (3.0, 6.0)],
)
def test_the_distance_is_right_where_squares_overflow_or_vanish(moved, expected, tmp_path):
    for name, number in (("before", 0.0), ("after", moved)):
        (tmp_path / name).write_bytes(safetensors.dump({"w": np.full(4, number)}))
    schema = safetensors.schema_of({"w": np.zeros(4)})
    assert distance(tmp_path / "before", tmp_path / "after", schema) == {"": pytest.approx(expected, rel=1e-15)}


def test_distances_of_blocks_that_differ_much_add_up(tmp_path):
    """In blocks of 65 536 numbers: what is tiny in one, huge in another and nothing in the third."""
    after = np.repeat([1e-180, 3e200, 0.0], 65_536)
    for name, number in (("before", after * 0), ("after", after)):
        (tmp_path / name).write_bytes(safetensors.dump({"w": number}))
    schema = safetensors.schema_of({"w": after})
    assert distance(tmp_path / "before", tmp_path / "after", schema) == {"": pytest.approx(256 * 3e200, rel=1e-12)}
