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
    """Write an engine config for the tiny model; later settings override earlier ones."""

    def write(*settings: dict[str, object], **keys: object) -> Path:
        path = tmp_path / "engine.json"
        config: dict[str, object] = {
            "base_dir": f"{tiny_model}/",
            "llm_weight": "model.safetensors",
        }
        for more in (*settings, keys):
            config |= more
        path.write_text(json.dumps(config))
        return path

    return write


@pytest.fixture
def make_engine(write_config: Callable[..., Path]) -> Callable[..., Engine]:
    """An engine on the tiny model; settings override its config."""

    def make(*settings: dict[str, object], **keys: object) -> Engine:
        return Engine(load_config(write_config(*settings, **keys)))

    return make


@pytest.fixture
def prompt() -> list[int]:
    """160 random tokens of the tiny model."""
    return np.random.default_rng(7).integers(3, 96, 160).tolist()
