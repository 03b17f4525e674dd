"""Run in a process of its own: the engine of the wheel prints what it likes, and may crash."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pytest_h2o.engine.config import SHIPPED
from pytest_h2o.runtimes.pymnn.wheel import Wheel, quiet

PROMPT_TOKENS, ANSWERED, FORCED = 320, 24, 256


def main(config: Path, result: Path) -> None:
    quiet()
    text = (SHIPPED / "heldout.txt").read_text("utf-8")
    wheel = Wheel(config, threads=1)
    tokens = wheel.encode(text)[:PROMPT_TOKENS]
    answers = [wheel.respond(tokens, ANSWERED).tokens for _ in range(4)]
    forcing = Wheel(config, threads=1, precision="high", all_logits=True)
    forced: list[np.ndarray] = []
    held: list[int] = []
    for _ in range(4):
        forcing.empty()
        forced.append(forcing.forward(tokens[:FORCED]))
        held.append(forcing.held)
    np.savez(
        result,
        prompt=tokens,
        sentence=wheel.encode("The default value is"),
        tokens=tokens[:FORCED],
        forced_tokens=tokens[:FORCED],
        logits=forced[0],
        answers=answers,
        forced=np.stack(forced)[:, -1],
        held=held,
    )


main(Path(sys.argv[1]), Path(sys.argv[2]))
