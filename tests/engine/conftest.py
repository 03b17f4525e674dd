"""Tiny random models, so that the engine's tests depend on no trained weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import TINY, random_weights

from pytest_h2o.engine.config import load_config
from pytest_h2o.engine.generate import Engine


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with config.json and model.safetensors of a random four-layer model."""
    directory = tmp_path_factory.mktemp("tiny_model")
    (directory / "config.json").write_text(json.dumps(TINY))
    save_file(random_weights(TINY), directory / "model.safetensors")
    return directory


@pytest.fixture
def write_config(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write an engine config for the tiny model; keys given override."""

    def write(**keys: object) -> Path:
        path = tmp_path / "engine.json"
        base = {"base_dir": f"{tiny_model}/", "llm_weight": "model.safetensors"}
        path.write_text(json.dumps({**base, **keys}))
        return path

    return write


@pytest.fixture
def make_engine(write_config: Callable[..., Path]) -> Callable[..., Engine]:
    """An engine on the tiny model; keys given override its config."""

    def make(**keys: object) -> Engine:
        return Engine(load_config(write_config(**keys)))

    return make


@pytest.fixture
def prompt() -> list[int]:
    """Sixty random tokens of the tiny model."""
    return np.random.default_rng(7).integers(3, 96, 60).tolist()
