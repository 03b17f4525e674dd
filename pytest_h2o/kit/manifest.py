"""``manifest.json``: what each launch was run with, under the original sweep's keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_h2o.keys import H2O_PREFIX, KEYS, NONE
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec

# The engine keys that have a column, in the original's order: those with a short name before the
# switches of the launch, the others after them; last, where a launch sets them, this project's own.
_KIT = [key for key in KEYS.values() if key.column != NONE and key.kit != "own"]
H2O_COLUMNS = [key for key in _KIT if key.name.startswith(H2O_PREFIX) and key.column != key.name]
OTHER_COLUMNS = [key for key in _KIT if key not in H2O_COLUMNS]
OWN_COLUMNS = [key for key in KEYS.values() if key.column != NONE and key.kit == "own"]


def manifest_entry(
    spec: LaunchSpec,
    return_code: int | None,
    *,
    config: Path,
    log: Path,
    disable_lossless: bool = False,
) -> dict[str, object]:
    """One launch, ``log`` null if it is not there; KeyError if its config lacks keys, as that of an
    H2O-off launch.
    """
    values = spec.config
    entry: dict[str, object] = {
        "run_id": spec.arm,
        "prompt_len": spec.prompt_tokens,
        "gen_len": spec.gen_tokens,
    }
    entry |= {key.column: values[key.name] for key in H2O_COLUMNS}
    entry |= {"disable_h2o": not values["kv_h2o_enable"], "disable_lossless": disable_lossless}
    entry |= {key.column: values[key.name] for key in OTHER_COLUMNS}
    entry |= {key.column: values[key.name] for key in OWN_COLUMNS if key.name in values}
    entry["config"] = str(config)
    entry["log"] = str(log) if log.is_file() else None
    entry["return_code"] = return_code
    return entry


def settings_of(entry: Mapping[str, object]) -> dict[str, ConfigValue]:
    """The engine keys of which an entry speaks; of a launch with H2O off its switches alone, since
    that config has no others.
    """
    found: dict[str, ConfigValue] = {}
    off = bool(entry.get("disable_h2o"))
    for key in H2O_COLUMNS + OTHER_COLUMNS + OWN_COLUMNS:
        value = entry.get(key.column)
        if isinstance(value, bool | int | float | str) and not off:
            found[key.name] = value
    if isinstance(entry.get("disable_h2o"), bool):
        found["kv_h2o_enable"] = not off
    return found
