"""The shipped weights through the engine against the usual implementation, transformers'
LlamaForCausalLM.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from record_logits import COLUMN, EVERY, RECORD, reference_logits

from pytest_h2o.engine.config import SHIPPED, load_config
from pytest_h2o.engine.generate import Engine


@pytest.fixture(scope="module")
def shipped() -> Engine:
    """The shipped weights with an fp32 cache, so that only the order of additions differs."""
    config = load_config(SHIPPED / "h2o.json")
    return Engine(replace(config, engine=replace(config.engine, precision="high")), threads=2)


def engine_logits(engine: Engine, tokens: Sequence[int], prompt: int) -> np.ndarray:
    """Logits after every token from number ``prompt`` on: read as a prompt, then decoded one by
    one.
    """
    engine.cache.clear()
    logits = [engine.model.prefill(tokens[:prompt], engine.cache, 2)]
    return np.array(
        logits + [engine.model.forward([token], engine.cache) for token in tokens[prompt:]]
    )


def test_recorded_logits(shipped: Engine) -> None:
    """Logits agree with those that transformers gave, after a prompt of several chunks and over
    cached decode steps.
    """
    record = np.load(RECORD)
    prompt = 20 * EVERY
    found = engine_logits(shipped, record["tokens"].tolist(), prompt)[::EVERY, ::COLUMN]
    np.testing.assert_allclose(found, record["logits"][19:], rtol=1e-4, atol=1e-3)


def test_live_logits(shipped: Engine) -> None:
    """Where torch and transformers are installed, all logits agree with theirs, on a prompt nobody
    recorded.
    """
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    tokens = np.random.default_rng(5).integers(3, 4096, 300).tolist()
    expected = reference_logits(tokens)
    np.testing.assert_allclose(
        engine_logits(shipped, tokens, 270), expected[269:], rtol=1e-4, atol=1e-3
    )
