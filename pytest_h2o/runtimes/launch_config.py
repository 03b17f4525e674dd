"""The engine configuration of a launch: the user's base config with normalised paths and the
launch's own values.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from pytest_h2o.runtimes.base import RuntimeSetupError

# The fields that name model files, with the file the engine takes where a config leaves the field
# out.
PATH_FIELDS: Mapping[str, str] = {
    "llm_config": "llm_config.json",
    "llm_model": "llm.mnn",
    "llm_weight": "llm.mnn.weight",
    "embedding_file": "embeddings_bf16.bin",
    "tokenizer_file": "tokenizer.txt",
    "context_file": "context.json",
}
SIZE_LIMIT = 16 * 2**20


def read_config(path: Path) -> dict[str, object]:
    """The JSON object in ``path``; raises :class:`RuntimeSetupError` if there is none."""
    if path.is_dir():
        raise RuntimeSetupError(f"model config {path} is a directory; give the config.json in it")
    if not path.is_file():
        raise RuntimeSetupError(
            f"model config {path} does not exist; correct --model-config or MODEL_CONFIG"
        )
    if path.stat().st_size > SIZE_LIMIT:
        raise RuntimeSetupError(
            f"model config {path} is larger than 16 MiB; give the engine's config.json"
        )
    try:
        config = json.loads(path.read_bytes(), parse_constant=_reject_constant)
    except OSError as error:
        raise RuntimeSetupError(
            f"model config {path} cannot be read: {error.strerror}; make it readable"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RuntimeSetupError(
            f"model config {path} is not JSON ({error}); correct it or give another file"
        ) from None
    if not isinstance(config, dict):
        raise RuntimeSetupError(
            f"model config {path} holds no JSON object; give the engine's config.json"
        )
    for name in ("base_dir", *PATH_FIELDS):
        if "\0" in str(config.get(name)):
            raise RuntimeSetupError(
                f"model config {path}: {name} contains a NUL character; correct it"
            )
    return config


def kept_config(path: Path) -> dict[str, object] | None:
    """The config that a launch left behind, None if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > SIZE_LIMIT:
            return None
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def resolve_base_dir(base: Mapping[str, object], path: Path) -> str:
    """The absolute model directory without symlinks; a relative ``base_dir`` starts at the config
    file's directory.
    """
    base_dir = base.get("base_dir")
    return os.path.realpath(path.parent / base_dir if isinstance(base_dir, str) else path.parent)


def model_files(base: Mapping[str, object], path: Path) -> dict[str, Path]:
    """The file of each path field, the engine's default where the field is left out."""
    base_dir = Path(resolve_base_dir(base, path))
    files: dict[str, Path] = {}
    for name, default in PATH_FIELDS.items():
        files[name] = base_dir / _text(base.get(name), default)
    return files


def _text(value: object, default: str) -> str:
    return value if isinstance(value, str) and value else default


def launch_config(
    base: Mapping[str, object], path: Path, values: Mapping[str, object]
) -> dict[str, object]:
    """The base config read from ``path`` with normalised paths, overwritten by ``values``.

    ``base_dir`` becomes absolute with a trailing slash, since the engine joins it to file names as
    text. The path fields are resolved and rewritten relative to it. Fields that the base config
    leaves out stay out for both
    programs: the engine's own defaults are the same names, and a generated file shows only what
        somebody chose.
    """
    base_dir = resolve_base_dir(base, path)
    config = dict(base)
    config["base_dir"] = os.path.join(base_dir, "")  # noqa: PTH118  pathlib drops the slash
    for name in PATH_FIELDS:
        value = base.get(name)
        if isinstance(value, str) and value:
            config[name] = os.path.relpath(os.path.realpath(Path(base_dir, value)), base_dir)
    return config | dict(values)


def overridden_values(
    base: Mapping[str, object], values: Mapping[str, object]
) -> dict[str, object]:
    """What ``base`` says about the keys that ``values`` gives another value or another JSON
    type.
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        if key in base and (type(base[key]), base[key]) != (type(value), value):
            found[key] = base[key]
    return found


def config_text(config: Mapping[str, object]) -> str:
    """``config`` as the engine reads it: JSON, ASCII, indented by 2."""
    return json.dumps(config, indent=2) + "\n"
