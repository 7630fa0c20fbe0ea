"""Sorting networks by the zero-one principle: what sorts zeros and ones sorts everything (Knuth 5.3.4, theorem Z)."""

from itertools import product

import numpy as np
import pytest

from nevermined_fl.aggregation import network, order


def run(program, values):
    registers = [*values, *[None] * (program.registers - program.inputs)]
    for larger, first, second, into in program.steps:
        assert into >= program.inputs, "an update was written into"
        registers[into] = (max if larger else min)(registers[first], registers[second])
    return [registers[output] for output in program.outputs]


@pytest.mark.parametrize("count", range(1, 12))
def test_every_input_of_zeros_and_ones_is_put_in_order(count):
    cut = count // 4
    places, middle = network.places(count, cut, count - cut), network.middle(count)
    for values in product((0, 1), repeat=count):
        assert run(places, values) == sorted(values)[cut : count - cut]
        assert sorted(run(middle, values)) == sorted(values)[(count - 1) // 2 : count // 2 + 1]


@pytest.mark.parametrize("count", [13, 32, 50, 64])
def test_larger_networks_put_chance_in_order(count):
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 9, count).tolist()
        assert run(network.places(count, 3, count - 5), values) == sorted(values)[3 : count - 5]
        assert sorted(run(network.middle(count), values)) == sorted(values)[(count - 1) // 2 : count // 2 + 1]


def test_pruning_and_forgetting_save_comparisons():
    assert len(network.places(10, 0, 10).steps) == 64  # Batcher's 32 comparisons, both ends of each
    assert len(network.middle(10).steps) == 44
    assert network.places(10, 4, 6).registers < 10 + 12  # results take the place of what nobody reads any more


@pytest.mark.parametrize("count", [10, 65])
def test_strips_cover_blocks_of_any_length(count):
    length = 2 * 16 * 1024 + 77
    blocks = [np.random.default_rng(index).normal(size=length) for index in range(count)]
    found = np.empty(length)
    for strip, rows in order.between(blocks, 3, 4):
        found[strip] = rows[0]
    assert (found == np.sort(np.stack(blocks), axis=0)[3]).all()
