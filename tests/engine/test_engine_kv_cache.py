"""Keys and values of a layer: what is dropped is gone, what is not is untouched, and everything can
come back.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_h2o.engine.kv_cache import Account, KVShape, LayerCache

TOKENS = 700


def filled(head_dim: int) -> LayerCache:
    """A layer of 700 tokens, none of whose values is 0."""
    layer = LayerCache(KVShape(2, head_dim, np.dtype(np.float16)), 1000, Account())
    layer.append(np.random.default_rng(1).uniform(1, 2, (TOKENS, 4 * head_dim)).astype(np.float32))
    return layer


@pytest.mark.parametrize(
    "head_dim", [8, 24, 32, 64]
)  # 128, 42 and two thirds, 32 and 16 tokens on a page
@given(begin=st.integers(0, TOKENS), count=st.integers(0, TOKENS))
@settings(max_examples=30)
def test_drop_and_restore(head_dim: int, begin: int, count: int) -> None:
    """Pages that begin or end within the span lose only the span, whatever the size of a token."""
    layer, end = filled(head_dim), min(begin + count, TOKENS)
    truth = np.array(layer.read())
    layer.drop(begin, end - begin)
    left = np.array(layer.read())
    gone = left[:, :, begin:end]
    assert np.all(np.isnan(gone) | (gone == 0))
    left[:, :, begin:end] = truth[:, :, begin:end]
    np.testing.assert_array_equal(left, truth)
    layer.restore(begin, truth[:, :, begin:end])
    np.testing.assert_array_equal(layer.read(), truth)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 90)), max_size=6))
@settings(max_examples=30)
def test_keep(steps: list[tuple[int, int]]) -> None:
    """Kept ranges move to the front in order; the account holds what is left."""
    layer, begin, ranges = filled(32), 0, []
    for gap, length in steps:
        ranges.append((begin + gap, length))
        begin += gap + length
    truth = np.array(layer.read())
    kept = [token for first, length in ranges for token in range(first, first + length)]
    layer.keep(ranges)
    np.testing.assert_array_equal(layer.read(), truth[:, :, kept])
    assert layer.account.held == len(kept) * layer.shape.token_bytes
