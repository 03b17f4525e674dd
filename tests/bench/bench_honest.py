"""How often an honest engine is refused by a relation: ``python tests/bench/bench_honest.py N``.

The suite ``relations`` is run N times on the embedded runtime, with other unseen prompts each time,
alternately with small settings and with the default ones (``--small`` or ``--default`` for one of
them). A line for each session, then the sums; whatever was refused or doubtful is printed whole.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Four prompts of one length and few tokens: what a quick look at a build takes.
SMALL = (
    "PROMPT_PATTERN=prompt_512_[1-4].txt",
    "DECODE_TOKENS=64",
    "PROMPTS=512",
    "GENS=64",
    "REPEAT=1",
)


def main() -> None:
    """Run the sessions and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", type=int)
    parser.add_argument("--small", action="store_true", help="small settings alone")
    parser.add_argument("--default", action="store_true", help="default settings alone")
    options = parser.parse_args()
    kinds = ["small", "default"]
    if options.small != options.default:
        kinds = ["small"] if options.small else ["default"]
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(options.sessions):
        kind = kinds[number % len(kinds)]
        outcome = session(SMALL if kind == "small" else (), f"{number + 1} {kind}")
        counts[kind, outcome] += 1
    for kind in kinds:
        total = counts[kind, "accepted"] + counts[kind, "refused"]
        print(f"{kind}: {counts[kind, 'accepted']} of {total} accepted")


def session(settings: tuple[str, ...], title: str) -> str:
    """Run the relations once; ``accepted`` or ``refused``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", str(ROOT / "gates"), "-q", "-m", "relations"]
        command += ["--rootdir", str(ROOT), "-p", "no:cacheprovider", "--h2o-out", folder]
        for setting in settings:
            command += ["--h2o-set", setting]
        started = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        summaries = list(Path(folder).glob("[0-9]*/summary.json"))
        if not summaries:
            raise SystemExit(f"no session was judged:\n{result.stdout}{result.stderr}")
        gates = json.loads(summaries[0].read_text())["gates"]
        launches = len(list(summaries[0].parent.glob("launches/*/launch.json")))
    print(f"{title}: {launches} launches, {seconds:.0f} s", flush=True)
    outcome = "accepted"
    for gate in gates:
        if gate["outcome"] not in ("pass", "skipped"):
            outcome = "refused"
            print(f"  refused by {gate['gate']}: {gate['reason']}", flush=True)
        for claim in gate.get("claims", []):
            if claim["standing"] == "doubtful":
                print(f"  doubt in {gate['gate']}: {claim['text']}", flush=True)
    return outcome


if __name__ == "__main__":
    main()
