"""pytest plugin: acceptance gates for KV-cache compression in LLM runtimes.

The names below are public; everything else may move. Each is imported when it is first used.

For a gate in a test file, :class:`Gate` and :class:`Lab` are the types of the fixtures ``gate`` and
``lab``. :class:`Run`, :class:`Row` and :class:`Sample` are what launches printed,
:class:`PairedStudy` and :class:`Comparison` what decode speed is held against, :class:`Evaluation`
what the offline evaluation of a KV dump found, :class:`Knobs` the settings in force. A fixture of
your own declares with :func:`needs` what it has launched. A gate judges
one :class:`Measured` with any :class:`Evidence`, which makes one :class:`Verdict`:

>>> from pytest_h2o import Gate, Lab
>>> def test_half_goes(lab: Lab, gate: Gate) -> None:
...     gate.positive(lab.run("full_strict").lowest("h2o_lossy"), above=2.0)

For a runtime or a program of your own: a :class:`RuntimeKind` provides :class:`Program` objects.
Its :class:`Runtime` turns a :class:`LaunchSpec`, one launch of a :class:`Case`, into a
:class:`Command` and raises :class:`RuntimeSetupError` where it cannot; what came of it is a
:class:`LaunchRecord`.

For a notebook: :func:`read_run` reads what a session, or anything that ``--h2o-replay`` judges,
left in a directory. The :class:`RecordedRun` has the frames ``metrics``, ``gates``, ``pairs`` and
``launches``, and ``columns``, which says what each of their columns means:

>>> from pytest_h2o import read_run
>>> run = read_run("h2o-runs/latest")
>>> bench = run.metrics.query("program == 'llm_bench'")
>>> bench.groupby("arm")["decode_tps"].median().round(1).to_dict()
{'baseline': 240.3, 'coverage': 196.8, 'full': 219.5, 'store': 207.6}
>>> run.gates.query("outcome not in ('pass', 'skipped')")["gate"].tolist()
['decode_drop']
>>> run.pairs[["arm", "label", "baseline_tps", "candidate_tps"]].round(1).head(2)
         arm         label  baseline_tps  candidate_tps
0  candidate  prompt_512_1         172.2          197.3
1  candidate  prompt_512_2         188.8          205.3
>>> run.launches["status"].value_counts().to_dict()
{'ok': 37}
>>> run.columns.set_index(["frame", "column"]).loc[("pairs", "drop"), "meaning"]
"share of the baseline's speed that is lost, negative if faster [share]"

A directory that is no run raises :class:`RecordingError`:

>>> read_run("absent")
Traceback (most recent call last):
pytest_h2o.lab.recordings.RecordingError: absent is not there; give the directory of an earlier run

:func:`evaluate` codes a KV dump as :class:`OfflineOptions` say, and raises :class:`OfflineError`
where there is none:

>>> from pathlib import Path
>>> from pytest_h2o import OfflineOptions, evaluate
>>> result = evaluate(Path("kv_dump"), OfflineOptions())
>>> round(result.tally("kv").ratio, 1), result.lossless
(1.2, True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_h2o.decode.pairs import PairedStudy
    from pytest_h2o.lab.decode import Comparison
    from pytest_h2o.lab.lab import Lab
    from pytest_h2o.lab.offline import Evaluation
    from pytest_h2o.lab.recordings import RecordingError
    from pytest_h2o.metrics import Sample
    from pytest_h2o.notebook import RecordedRun, read_run
    from pytest_h2o.offline import OfflineError
    from pytest_h2o.offline.evaluate import evaluate
    from pytest_h2o.offline.options import OfflineOptions
    from pytest_h2o.parsers.rows import Row
    from pytest_h2o.plan.cases import Case
    from pytest_h2o.plan.knobs import Knobs
    from pytest_h2o.plan.needs import needs
    from pytest_h2o.plan.specs import LaunchSpec
    from pytest_h2o.runs.records import LaunchRecord
    from pytest_h2o.runs.results import Run
    from pytest_h2o.runtimes.base import Command, Program, Runtime, RuntimeKind, RuntimeSetupError
    from pytest_h2o.session.gate import Gate
    from pytest_h2o.verdict import Evidence, Measured, Verdict

__all__ = [
    "Case",
    "Command",
    "Comparison",
    "Evaluation",
    "Evidence",
    "Gate",
    "Knobs",
    "Lab",
    "LaunchRecord",
    "LaunchSpec",
    "Measured",
    "OfflineError",
    "OfflineOptions",
    "PairedStudy",
    "Program",
    "RecordedRun",
    "RecordingError",
    "Row",
    "Run",
    "Runtime",
    "RuntimeKind",
    "RuntimeSetupError",
    "Sample",
    "Verdict",
    "evaluate",
    "needs",
    "read_run",
]
_PLACES = {
    "Case": "plan.cases",
    "Command": "runtimes.base",
    "Comparison": "lab.decode",
    "Evaluation": "lab.offline",
    "Evidence": "verdict",
    "Gate": "session.gate",
    "Knobs": "plan.knobs",
    "Lab": "lab.lab",
    "LaunchRecord": "runs.records",
    "LaunchSpec": "plan.specs",
    "Measured": "verdict",
    "OfflineError": "offline",
    "OfflineOptions": "offline.options",
    "PairedStudy": "decode.pairs",
    "Program": "runtimes.base",
    "RecordedRun": "notebook",
    "RecordingError": "lab.recordings",
    "Row": "parsers.rows",
    "Run": "runs.results",
    "Runtime": "runtimes.base",
    "RuntimeKind": "runtimes.base",
    "RuntimeSetupError": "runtimes.base",
    "Sample": "metrics",
    "Verdict": "verdict",
    "evaluate": "offline.evaluate",
    "needs": "plan.needs",
    "read_run": "notebook",
}

# Type checkers take the imports above, and would take any name if they saw this.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
