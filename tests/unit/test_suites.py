"""Suites that are put together from others."""

from __future__ import annotations

import pytest

from pytest_h2o.kit.versions import Kit, composed


@pytest.mark.parametrize(
    ("mark", "kit", "off", "suites"),
    [
        ("runtime", "v6", (), {"final", "all_in_one"}),
        ("runtime", "v6", ("RUN_FINAL",), {"final"}),
        ("m3", "v6", ("RUN_FINAL",), {"final", "all_in_one"}),
        ("m3", "v6", ("RUN_FINAL", "RUN_M3"), {"final"}),
        ("llm_demo", "v6", ("RUN_LLM_DEMO",), {"final", "all_in_one"}),
        ("llm_demo", "v5", (), set()),
        ("m3", "v5", (), {"final"}),
        ("sweep", "v6", (), set()),
        ("store_smoke", "v6", (), set()),
    ],
)
def test_composed(mark: str, kit: Kit, off: tuple[str, ...], suites: set[str]) -> None:
    """final is what its version accepts; all_in_one is every part that no knob turns off, and v5
    has none.
    """
    assert composed({mark, "parametrize"}, kit, lambda knob: knob not in off) == suites
