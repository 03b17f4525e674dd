"""Is the baseline as fast as it can be? It is held against a candidate with nothing to evict."""

from __future__ import annotations

from pytest_h2o.decode.judge import in_words
from pytest_h2o.decode.pairs import SCREEN_PAIRS, PairedStudy
from pytest_h2o.decode.study import Study
from pytest_h2o.verdict import Evidence

BASELINE = "the baseline is not slower than a candidate that does the same and has more to do"
CANDIDATE = "with nothing to evict the candidate is as fast as the baseline"
UNDECIDED = "undecided after as many pairs as may be measured"
COST = "scores that are kept whether or not anything is evicted cost this"


def unevicted_evidence(paired: PairedStudy, target: float) -> list[Evidence]:
    """What the pairs of a study show whose drop is that of the baseline against the candidate.

    A slow baseline is refuted. A slow candidate is a doubt: honest programs score tokens all the
    time, and what that costs is for the decode gates to judge.
    """
    study = paired.study
    if study is None:
        return []
    text = f"the baseline beside the candidate: {_shown(study)}"
    found = Evidence.of(BASELINE, study.decision == "pass", text)
    if study.decision == "inconclusive":
        found = Evidence(claim=BASELINE, standing="doubtful", text=f"{text}; {UNDECIDED}")
    if not _candidate_slower(study, target):
        return [found]
    return [found, Evidence(claim=CANDIDATE, standing="doubtful", text=f"{text}; {COST}")]


def _candidate_slower(study: Study, target: float) -> bool:
    """Whether the candidate is surely slower by more than ``target``: a drop of the baseline that
    is negative, as a share of the candidate's speed.
    """
    return 1 / (1 - study.drop_high) < 1 - target


def _shown(study: Study) -> str:
    if study.pairs <= SCREEN_PAIRS:
        pairs = f"{study.drop_low:+.1%} to {study.drop_high:+.1%} in {study.pairs} pairs"
        return f"drop {study.drop:+.1%}, {pairs}"
    return f"{in_words(study)} ({study.pairs} pairs)"
