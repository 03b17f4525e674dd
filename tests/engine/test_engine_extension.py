"""A policy or a codec is one new file, found by its name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from page_blocks import file_block
from tiny_models import H2O, LOSSLESS

from pytest_h2o.codec import block_codecs
from pytest_h2o.engine import policies
from pytest_h2o.engine.config import ConfigError
from pytest_h2o.engine.generate import Engine

OLDEST = file_block("oldest.py")
ZLIB = file_block("deflate.py")


@pytest.fixture
def add_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[ModuleType, str, str], None]]:
    """Put a module into a package, as a file in its folder would be."""
    added = []

    def add(package: ModuleType, name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        added.append(f"{package.__name__}.{name}")

    yield add
    for name in added:
        sys.modules.pop(name, None)


def test_a_policy_is_one_file(
    make_engine: Callable[..., Engine],
    prompt: list[int],
    add_file: Callable[[ModuleType, str, str], None],
) -> None:
    """One that keeps what is oldest leaves the front of the prompt in the cache; it is unknown
    without its file.
    """
    with pytest.raises(
        ConfigError, match="kv_h2o_policy: 'oldest' is unknown; choose one of h2o, window"
    ):
        make_engine(H2O, kv_h2o_policy="oldest")
    plain = make_engine()
    add_file(policies, "oldest", OLDEST)
    engine = make_engine(H2O, kv_h2o_policy="oldest")
    assert engine.respond(prompt, 4).metrics.evictions_applied > 0
    plain.respond(prompt, 4)
    kept, full = (each.cache.layers[1].first(40)[0] for each in (engine, plain))
    np.testing.assert_array_equal(kept, full)


def test_a_codec_is_one_file(
    make_engine: Callable[..., Engine],
    prompt: list[int],
    add_file: Callable[[ModuleType, str, str], None],
) -> None:
    """Blocks are coded by a codec that was added, its bytes are counted, and no token differs."""
    with pytest.raises(
        ConfigError,
        match="kv_lossless_codec_runtime: 'deflate' is unknown; choose one of fp16_gear",
    ):
        make_engine(LOSSLESS, kv_lossless_codec_runtime="deflate")
    ours = make_engine(LOSSLESS).respond(prompt, 40)
    add_file(block_codecs, "deflate", ZLIB)
    theirs = make_engine(
        LOSSLESS, kv_lossless_codec_runtime="deflate", kv_lossless_runtime_mode="store"
    )
    response = theirs.respond(prompt, 40)
    assert response.tokens == ours.tokens
    assert response.metrics.roundtrips > 0
    assert response.metrics.lossless not in (1, ours.metrics.lossless)
