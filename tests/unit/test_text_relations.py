"""Relations between launches: honest programs keep them, and each kind of fault breaks its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from gate_functions import RELATIONS, judge

from pytest_h2o.evidence.answers import Answer
from pytest_h2o.evidence.known import table_evidence
from pytest_h2o.lab.builds import Builds
from pytest_h2o.lab.heavy_eviction import heavy_eviction
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.target_ratios import target_ratios
from pytest_h2o.lab.text_relation import TextRelation, text_relation
from pytest_h2o.lab.unseen_prompts import strangers, unseen
from pytest_h2o.parsers.demo_output import generated_text
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.relations import MILD_RATIO, STEPS, ratios
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.unseen import made_anew, reordered, with_one_opening
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.verdict import Verdict

# What an honest program writes to each prompt: 8 characters a token.
STORY = {
    name: f"{name} said that " + "the quick brown fox jumps over the lazy dog; " * 60
    for name in ("prompt_512_1", "prompt_2048_1")
}
LONGEST = 1 << 16
SQUARES = "; ".join(f"the square of {number} is {number**2}" for number in range(1, 9))
EVICTED = "and under eviction the story ends in another way, as it may"
Text = Callable[[LaunchSpec], str]
SUMMARY = """
#################################
prompt tokens num = 500
decode tokens num = {gen}
prefill time = 0.10 s
 decode time = 1.00 s
 sample time = 0.01 s
prefill speed = 5000.00 tok/s
 decode speed = {gen}.00 tok/s
##################################
"""


def evicts(spec: LaunchSpec) -> bool:
    if not spec.config["kv_h2o_enable"]:
        return False
    protected = int(spec.config["kv_h2o_recent_tokens"]) > LONGEST
    return spec.config["kv_h2o_target_lossy_ratio"] != 1 and not protected


def lossless(spec: LaunchSpec) -> bool:
    return bool(spec.config["kv_lossless_enable"])


def asked(spec: LaunchSpec) -> float:
    """The ratio that an honest program reaches."""
    return float(spec.config["kv_h2o_target_lossy_ratio"]) if evicts(spec) else 1.0


def stores(spec: LaunchSpec) -> bool:
    return lossless(spec) and spec.config["kv_lossless_runtime_mode"] == "store"


def honest(spec: LaunchSpec) -> str:
    text = STORY.get(spec.label, STORY["prompt_512_1"])
    if evicts(spec):
        same = 90 if asked(spec) > MILD_RATIO else 400
        text = text[:same] + EVICTED + text
    return text[: 8 * spec.gen_tokens]


@dataclass
class Pen:
    """A store of launches whose text is what ``write`` gives for each spec."""

    root: Path
    write: Text
    launched: list[str] = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)
    broken: str = ""
    lossy: Callable[[LaunchSpec], float] = asked

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        directory = self.root / spec.key
        record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(directory))  # type: ignore[arg-type]
        if not directory.exists():
            self.launched.append(spec.name)
            directory.mkdir(parents=True)
            self._leave(record)
        if self.broken and self.broken in spec.name:
            return LaunchRecord(
                spec=spec,
                status="failed",
                reason="ended by signal 11",
                **standard_paths(directory),  # type: ignore[arg-type]
            )
        return record

    def _leave(self, record: LaunchRecord) -> None:
        spec = record.spec
        times = {"prefill_us": 100_000, "decode_us": 1_000_000, "sample_us": 10_000}
        text = self.write(spec)
        tokens = max(1, -(-len(text) // 8))
        row = {"prompt_index": 0, "prompt_tokens": 500, "decode_tokens": tokens, **times}
        row |= {"h2o_lossy_ratio": self.lossy(spec), "h2o_keep_ratio": 1 / self.lossy(spec)}
        record.metrics.write_text(json.dumps(row) + "\n")
        record.config_path.write_text(json.dumps(self.config))
        summary = SUMMARY.format(gen=tokens)
        record.stdout.write_text(f"\nprompt file is p\n{text}{summary}")


def make_lab(
    tmp_path: Path,
    write: Text = honest,
    *settings: str,
    stems: Sequence[str] = tuple(STORY),
    **more: object,
) -> tuple[Lab, Pen]:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for stem in ("prompt_128_1", *stems):
        (prompts / f"{stem}.txt").write_text("a prompt")
    pen = Pen(tmp_path / "launches", write, **more)  # type: ignore[arg-type]
    return Lab(tmp_path, resolve(settings, suite="final"), pen.get, prompts), pen


def relate(
    name: str, tmp_path: Path, write: Text = honest, *settings: str, **more: Any
) -> tuple[TextRelation, Pen]:
    lab, pen = make_lab(tmp_path, write, *settings, **more)
    return text_relation(lab, name), pen


STRANGERS = (RELATIONS.test_requests_are_strangers, "answers_in_a_row")
GATES = {
    "lossless": (RELATIONS.test_lossless_is_lossless, "lossless_texts"),
    "unevicted": (RELATIONS.test_nothing_evicted_nothing_changes, "unevicted_texts"),
    "greedy": (RELATIONS.test_repeated_launches_agree, "repeated_texts"),
}


def judged(name: str, relation: TextRelation, *settings: str) -> Verdict:
    gate, fixture = STRANGERS if name == "strangers" else GATES[name]
    return judge(gate, resolve(settings, suite="final"), **{fixture: relation})


@pytest.mark.parametrize("name", GATES)
def test_honest_programs_keep_every_relation(name: str, tmp_path: Path) -> None:
    """They write the same text in all arms, and nothing else is launched to find that out."""
    relation, pen = relate(name, tmp_path)
    verdict = judged(name, relation)
    assert (verdict.outcome, verdict.standing) == ("pass", "supported")
    comparisons = relation.lab.workload.relations.comparisons(name)
    planned = {spec.key for pair in comparisons for spec in pair.specs}
    assert len(pen.launched) == len(planned)


def with_blocks(size: Callable[[LaunchSpec], int]) -> Text:
    """An honest text behind the line of a block that was encoded to so many bytes."""

    def write(spec: LaunchSpec) -> str:
        line = "[H2O-LOSSLESS] layer=0 kv=520 start=16 tokens=128 raw=1000 updates=1"
        line += f" attempt_comp={size(spec)} eff_comp={size(spec)}\n"
        return (line if lossless(spec) else "") + honest(spec)

    return write


@pytest.mark.parametrize(
    ("with_h2o", "without", "outcome"), [(700, 700, "pass"), (700, 705, "pass"), (700, 600, "fail")]
)
def test_values_of_front_layers(with_h2o: int, without: int, outcome: str, tmp_path: Path) -> None:
    """A baseline whose KV is coarser has smaller blocks, though it writes the same text."""
    write = with_blocks(lambda spec: with_h2o if spec.config["kv_h2o_enable"] else without)
    relation, _ = relate("lossless", tmp_path, write)
    verdict = judged("lossless", relation)
    assert verdict.outcome == outcome
    assert any("first block" in each.text for each in relation.evidence)


@pytest.mark.parametrize(
    ("slow", "outcome"), [((), "pass"), ((1, 2, 3), "fail"), ((1,), "pass"), ((1, 2), "pass")]
)
def test_speed_of_the_baseline_on_prompts(
    slow: tuple[int, ...], outcome: str, tmp_path: Path
) -> None:
    """A baseline that is far slower whenever it is launched is told; one that is held up is not."""
    lab, pen = make_lab(tmp_path, honest, "DECODE_TOKENS=64", "RELATION_TOKENS=64")
    get = pen.get

    def timed(spec: LaunchSpec) -> LaunchRecord:
        record = get(spec)
        if not spec.config["kv_h2o_enable"] and spec.replicate in slow:
            row = json.loads(record.metrics.read_text())
            record.metrics.write_text(json.dumps(row | {"decode_us": 1_600_000}))
            text = record.stdout.read_text().replace("decode time = 1.00", "decode time = 1.60")
            record.stdout.write_text(text.replace("decode speed = 64.00", "decode speed = 40.00"))
        return record

    lab.get = timed
    relation = text_relation(lab, "unevicted")
    assert judged("unevicted", relation).outcome == outcome
    told = any("1.60, 1.60, 1.60 times as long" in each.text for each in relation.evidence)
    assert told == (outcome == "fail")


@pytest.mark.parametrize(("peak", "outcome"), [(1000.0, "pass"), (1200.0, "fail")])
@pytest.mark.parametrize("asked_for", [(), ("greedy",)])
def test_memory_of_the_baseline(
    peak: float, outcome: str, asked_for: tuple[str, ...], tmp_path: Path
) -> None:
    """A baseline that holds more than a candidate with nothing to evict is told, without a launch
    that is not made anyway.
    """
    tokens = "DECODE_TOKENS=128" if asked_for else "DECODE_TOKENS=64"
    lab, pen = make_lab(tmp_path, honest, tokens, "RELATION_TOKENS=64")
    lab.demand = Demand(relations=asked_for)
    write, planned = pen.get, lab.workload.relations.launches("unevicted")
    for name in asked_for:
        planned += lab.workload.relations.launches(name)

    def get(spec: LaunchSpec) -> LaunchRecord:
        on = spec.config["kv_h2o_enable"]
        # Longer answers hold more, of which nobody is to blame.
        return replace(write(spec), peak_mb=1000.0 if on else peak + 10 * spec.gen_tokens - 640)

    lab.get = get
    relation = text_relation(lab, "unevicted")
    assert judged("unevicted", relation).outcome == outcome
    assert set(pen.launched) <= {spec.name for spec in planned}
    assert any("nothing to evict (" in each.text for each in relation.evidence)


def test_values_that_several_threads_round(tmp_path: Path) -> None:
    """What one thread encodes to one size may come to others where threads add up by chance."""
    write = with_blocks(
        lambda spec: 600 if spec.threads > 1 and not spec.config["kv_h2o_enable"] else 700
    )
    relation, _ = relate("lossless", tmp_path, write)
    verdict = judged("lossless", relation)
    assert (verdict.outcome, verdict.standing) == ("pass", "doubtful")


def twisted(spec: LaunchSpec, at: int = 100) -> str:
    text = honest(spec)
    return text[:at] + "XY" + text[at + 2 :]


def lossy_codec(spec: LaunchSpec) -> str:
    return twisted(spec) if stores(spec) else honest(spec)


def lossy_codec_without_eviction(spec: LaunchSpec) -> str:
    return twisted(spec) if stores(spec) and not evicts(spec) else honest(spec)


def stale_cache(spec: LaunchSpec) -> str:
    cached = lossless(spec) and spec.config["kv_lossless_decode_cache_blocks"] != 0
    return twisted(spec) if cached and evicts(spec) else honest(spec)


def lost_errors_of_workers(spec: LaunchSpec) -> str:
    broken = lossless(spec) and spec.config["kv_lossless_async_threads"] == 4
    return twisted(spec) if broken else honest(spec)


def other_codec(spec: LaunchSpec) -> str:
    broken = stores(spec) and spec.config["kv_lossless_codec_runtime"] == "fp16_gear_seq_v1"
    return twisted(spec) if broken else honest(spec)


def quantised_baseline(spec: LaunchSpec) -> str:
    return twisted(spec) if len(spec.config) == 3 else honest(spec)


def ends_early(spec: LaunchSpec) -> str:
    return honest(spec)[:40] if evicts(spec) or len(spec.config) > 3 else honest(spec)


def random_text(spec: LaunchSpec) -> str:
    return twisted(spec, 20 * spec.replicate) if evicts(spec) else honest(spec)


def late_results(spec: LaunchSpec) -> str:
    """What encode workers return is used when it happens to come."""
    late = stores(spec) and spec.config["kv_lossless_async_threads"] == 4
    return twisted(spec, 20 * spec.replicate) if late else honest(spec)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("lossless", late_results, "alone: store, 4 encode workers"),
        ("lossless", lossy_codec, "alone: store"),
        ("lossless", lossy_codec_without_eviction, "beside baseline"),
        ("lossless", stale_cache, "candidate beside lossless off"),
        ("lossless", lost_errors_of_workers, "alone: store, 4 encode workers"),
        ("lossless", other_codec, "alone: store, codec fp16_gear_seq_v1"),
        ("unevicted", quantised_baseline, "target ratio 1 beside baseline: from character 101"),
        ("unevicted", ends_early, "nothing instead of"),
        ("greedy", random_text, "candidate-again beside candidate"),
    ],
)
def test_faults_are_refused(name: str, write: Text, words: str, tmp_path: Path) -> None:
    """A fault shows in the text, and the reason names the settings that it comes with."""
    relation, _ = relate(name, tmp_path, write)
    verdict = judged(name, relation)
    assert verdict.outcome == "fail"
    assert words in verdict.reason


def rounds_by_threads(spec: LaunchSpec) -> str:
    odd = spec.threads == 1 or (stores(spec) and evicts(spec))
    return twisted(spec, 200) if odd else honest(spec)


def rounds_in_parallel(spec: LaunchSpec) -> str:
    return twisted(spec, 200) if spec.threads > 1 and stores(spec) else honest(spec)


def rounds_by_block(spec: LaunchSpec) -> str:
    blocks = spec.config.get("kv_lossless_block_tokens", 128)
    return twisted(spec, 200) if lossless(spec) and blocks == 64 else honest(spec)


def races(spec: LaunchSpec) -> str:
    return twisted(spec, 20 * spec.replicate) if spec.threads > 1 else honest(spec)


def draws(spec: LaunchSpec) -> str:
    return twisted(spec, len(spec.key) + int(spec.key, 16) % 97)


@pytest.mark.parametrize(
    ("name", "write", "settings", "config", "words"),
    [
        ("lossless", rounds_by_threads, (), {}, "on 1 threads too"),
        ("lossless", rounds_in_parallel, (), {}, "writes the same"),
        ("lossless", rounds_by_block, (), {}, "block by block"),
        ("greedy", races, (), {}, "on one thread it repeats its text"),
        ("lossless", draws, (), {}, "does not even repeat its own text"),
        ("greedy", draws, (), {"sampler_type": "temperature"}, "draws at random"),
        ("unevicted", draws, ("BACKEND=opencl",), {}, "kernels of opencl"),
    ],
)
def test_what_honest_programs_may_do_is_a_doubt(  # noqa: PLR0913, PLR0917  a parameter each
    name: str,
    write: Text,
    settings: tuple[str, ...],
    config: dict[str, object],
    words: str,
    tmp_path: Path,
) -> None:
    """Kernels that round by how work is split, or samplers that draw, are told of, not refused."""
    relation, _ = relate(name, tmp_path, write, *settings, config=config)
    verdict = judged(name, relation)
    assert (verdict.outcome, verdict.standing) == ("pass", "doubtful")
    assert words in verdict.warning


RECORDED = Path(__file__).parents[1] / "data" / "relations"


def recorded(spec: LaunchSpec) -> str:
    """What a real build wrote under these settings."""
    arm = "off"
    if spec.config["kv_h2o_enable"]:
        arm = "h2o_store" if stores(spec) else "h2o_full"
        if not lossless(spec):
            arm = "h2o_lossless_off"
        elif not evicts(spec):
            arm = "h2o_ratio_1"
    elif lossless(spec):
        arm = "store_h2o_off" if stores(spec) else "full_h2o_off"
    if spec.replicate > 1 and arm in ("off", "h2o_full"):
        arm += "_again"
    return generated_text(RECORDED / spec.label / f"{arm}.txt")


@pytest.mark.parametrize(
    ("name", "outcome"), [("lossless", "fail"), ("unevicted", "pass"), ("greedy", "pass")]
)
def test_a_real_build_whose_lossless_stage_is_none(name: str, outcome: str, tmp_path: Path) -> None:
    """With H2O on, switching lossless coding on changes what this build writes; all else holds."""
    settings = ("DECODE_TOKENS=128", "RELATION_TOKENS=128")
    stems = [path.name for path in RECORDED.iterdir()]
    relation, _ = relate(name, tmp_path, recorded, *settings, stems=stems)
    verdict = judged(name, relation)
    assert verdict.outcome == outcome
    for label, mode in (("2048_2", "candidate"), ("2048_2", "store"), ("512_3", "store")):
        words = f"prompt_{label}: {mode}"
        assert (words in verdict.reason) == (name == "lossless")


@pytest.mark.parametrize(
    ("write", "standing"),
    [
        (lambda spec: ("so it ends " if evicts(spec) else "") + SQUARES, "supported"),
        (lambda _: SQUARES, "contradicted"),
        (lambda _: "so " * 200, "doubtful"),
        (lambda _: "yes", "doubtful"),
    ],
)
def test_what_is_evicted_is_missing(write: Text, standing: str, tmp_path: Path) -> None:
    """A program whose answers are always the full cache's is refused; loops and short answers tell
    nothing.
    """
    lab, _ = make_lab(tmp_path, write)
    relation = heavy_eviction(lab)
    settings = resolve((), suite="final")
    verdict = judge(RELATIONS.test_evicted_is_missing, settings, heavy_eviction=relation)
    assert [each.standing for each in relation.evidence] == [standing]
    assert verdict.outcome == ("fail" if standing == "contradicted" else "pass")


def test_an_answer_that_is_cut_short_is_another(tmp_path: Path) -> None:
    """Of two launches that may write as much, one text is not the beginning of the other."""

    def shorter(spec: LaunchSpec) -> str:
        text = honest(spec)
        return text if len(spec.config) == 3 else text[: len(text) * 3 // 4]

    relation, _ = relate("unevicted", tmp_path, shorter, "DECODE_TOKENS=64", "RELATION_TOKENS=64")
    assert judged("unevicted", relation).outcome == "fail"


@pytest.mark.parametrize("name", GATES)
def test_what_cannot_be_compared_fails(name: str, tmp_path: Path) -> None:
    """A launch that crashed, or a program that prints no text, is not accepted."""
    (tmp_path / "crashed").mkdir()
    crashed, _ = relate(name, tmp_path / "crashed", broken="demo-prompt_512_1")
    verdict = judged(name, crashed)
    assert verdict.outcome == "fail"
    assert "ended by signal 11" in verdict.reason
    (tmp_path / "silent").mkdir()
    silent, _ = relate(name, tmp_path / "silent", lambda _: "")
    assert "no text" in judged(name, silent).reason


@pytest.mark.parametrize(("name", "knob"), [(name, f"RELATION_{name.upper()}") for name in GATES])
def test_a_relation_that_is_turned_off_launches_nothing(
    name: str, knob: str, tmp_path: Path
) -> None:
    """Its gate is skipped, and says which knob did it."""
    relation, pen = relate(name, tmp_path, honest, f"{knob}=0")
    assert pen.launched == []
    assert judged(name, relation, f"{knob}=0").reason == f"turned off by {knob}=0"


def answer(prompt: str, spec: LaunchSpec) -> str:
    """What an honest program answers: the end of the prompt, over and over."""
    return (f"about {prompt[-60:]}: " * 40)[: 8 * spec.gen_tokens]


def honest_server(spec: LaunchSpec) -> str:
    assert spec.prompt_file
    lines = spec.prompt_file.read_text().splitlines()
    return "\n".join(answer(line, spec) for line in lines)


def indents_the_next_line(spec: LaunchSpec) -> str:
    """Every answer ends as the next line of a program begins."""
    return honest_server(spec).replace("\n", "\n" + " " * 12 + "\n\n")


def keeps_kv(spec: LaunchSpec) -> str:
    """The second answer knows what the first prompt was."""
    text = honest_server(spec)
    return text.replace("\nabout", "\nabove, and about") if spec.line_by_line else text


def keeps_kv_by_chance(spec: LaunchSpec) -> str:
    """What the second answer knows of the first is another thing in each launch."""
    return keeps_kv(spec).replace("above", f"above {spec.replicate}")


def races(spec: LaunchSpec) -> str:
    """On several threads no launch repeats another one's text."""
    text = honest_server(spec)
    return text if spec.threads == 1 else f"{text} {spec.name}"


def answers_once(spec: LaunchSpec) -> str:
    return honest_server(spec).partition("\n")[0]


def says_more(spec: LaunchSpec) -> str:
    text = honest_server(spec)
    return f"{text}\nand what the one before you asked" if spec.line_by_line else text


@pytest.mark.parametrize(
    ("write", "outcome", "words"),
    [
        (honest_server, "pass", ""),
        (indents_the_next_line, "pass", ""),
        (keeps_kv, "fail", "answer 2 is not the one that its prompt gives alone"),
        (keeps_kv_by_chance, "fail", "answer 2 is not the one that its prompt gives alone"),
        (races, "pass", ""),
        (answers_once, "fail", "answer 2 is not the one"),
        (says_more, "fail", "more was written than the prompts give alone"),
    ],
)
def test_requests_are_strangers(write: Text, outcome: str, words: str, tmp_path: Path) -> None:
    """One launch with all prompts, longest first, writes what one launch for each wrote."""
    lab, pen = make_lab(tmp_path, write)
    verdict = judged("strangers", strangers(lab))
    assert (verdict.outcome, words in verdict.reason) == (outcome, True)
    quick = write in (honest_server, indents_the_next_line)
    assert len(pen.launched) == 3 if quick else len(pen.launched) > 3


def loses_in_store_mode(spec: LaunchSpec) -> str:
    """Store mode changes each answer, alone as well as after others."""
    text = honest_server(spec)
    stored = spec.config.get("kv_lossless_runtime_mode") == "store"
    return text.replace("about", "above") if stored else text


def serves_others_in_store_mode(spec: LaunchSpec) -> str:
    """Store mode serves the blocks of the request before, if there was one."""
    stored = spec.config.get("kv_lossless_runtime_mode") == "store"
    return keeps_kv(spec) if stored else honest_server(spec)


@pytest.mark.parametrize(
    ("write", "outcome"), [(loses_in_store_mode, "pass"), (serves_others_in_store_mode, "fail")]
)
def test_strangers_in_store_mode(write: Text, outcome: str, tmp_path: Path) -> None:
    """Blocks are held for later only in store mode; what it changes alone is another relation's."""
    lab, _ = make_lab(tmp_path, write)
    assert judged("strangers", strangers(lab)).outcome == outcome


def test_prompts_with_one_opening() -> None:
    """The first words are those of the first text, and lengths stay within a word."""
    texts = [
        "one two three four five six seven " * 4,
        "apples and pears and cherries and plums " * 9,
    ]
    made = with_one_opening(texts)
    assert made[0] == texts[0]
    assert made[1].startswith("one two three four five six seven ")
    assert made[1].endswith(texts[1][-200:])
    assert abs(len(made[1]) - len(texts[1])) < 10
    assert with_one_opening([]) == []
    assert with_one_opening(["short", "words"]) == ["short", "words"]


def test_a_prompt_reordered() -> None:
    """It begins alike and has the same words, the later sentences in another order."""
    text = " ".join(f"Sentence {number} has its words." for number in range(12))
    other = reordered(text, 5)
    assert other != text
    assert other.startswith("Sentence 0 has its words. Sentence 1 has its words. ")
    assert sorted(other.split()) == sorted(text.split())
    assert reordered("One. Two. Three.", 1) == "One. Three. Two."
    assert reordered("one", 1) == "one"


TEXT = """# Notes of 12 March 2024
Anna paid 350 euros. Ben paid 99 euros! Who paid more?

The list: apples, 4 of them; pears, 5 of them. 你好。再见。
"""


def test_prompts_are_made_anew() -> None:
    """Each seed gives one line with the same words in another order, and other numbers."""
    made = {made_anew(TEXT, seed) for seed in range(20)}
    assert len(made) == 20
    for text in made:
        assert len(text.splitlines()) == 1
        assert not text.startswith("#")
        letters = [word for word in re.sub(r"\d", "0", text).split() if word != "#"]
        assert sorted(letters) == sorted(
            re.sub(r"\d", "0", TEXT).replace("。再", "。 再").split()[1:]
        )
    assert made_anew(TEXT, 5) == made_anew(TEXT, 5)


def test_prompts_are_made_once_a_session(tmp_path: Path) -> None:
    """Every process finds the same files; another session has others, unless a seed is given."""
    lab, pen = make_lab(tmp_path, honest_server)
    (tmp_path / "prompts" / "prompt_512_1.txt").write_text(TEXT[2:] * 3)
    found = [each.prompt for each in unseen(lab).answers]
    assert [each.prompt for each in unseen(lab).answers] == found
    assert len(pen.launched) == 4
    assert any("euros" in prompt for prompt in found)


def test_prompts_in_a_row_have_one_length(tmp_path: Path) -> None:
    """The second has the words of the first in another order; a single sentence has none."""
    lab, _ = make_lab(tmp_path, honest_server)
    text = " ".join(f"Sentence {number} has its words." for number in range(12))
    (tmp_path / "prompts" / "prompt_2048_1.txt").write_text(text)
    first, second = [each.prompt for each in unseen(lab).answers]
    assert first != second
    assert sorted(first.split()) == sorted(second.split())


def answered(label: str, baseline: str, candidate: str) -> Answer:
    return Answer(label, "a prompt", baseline, candidate)


@pytest.mark.parametrize(
    ("known", "unseen_alike", "standing"),
    [(12, 0, "contradicted"), (12, 2, "doubtful"), (11, 0, "doubtful"), (5, 0, "supported")],
)
def test_answers_from_a_table(known: int, unseen_alike: int, standing: str) -> None:
    """Heavy eviction that changes no known answer, and every new one, was none."""
    long, other = "a long answer " * 20, "a long answer, but another one " * 10
    shipped = [answered(f"p{n}", long, long if n < known else other) for n in range(12)]
    new = [answered(f"n{n}", long, long if n < unseen_alike else other) for n in range(2)]
    [evidence] = table_evidence(shipped, new, {f"p{n}" for n in range(12)})
    assert evidence.standing == standing
    [unknown] = table_evidence(shipped, new, set())
    assert unknown.standing == "not evidenced"


@pytest.mark.parametrize(("known_alike", "launches"), [(12, 8), (3, 4)])
def test_more_unseen_prompts_where_known_ones_look_looked_up(
    known_alike: int, launches: int, tmp_path: Path
) -> None:
    """Two new answers, one of them the baseline's, decide nothing; a few more are made then, and
    then alone.
    """
    long, other = "a long answer " * 20, "a long answer, but another one " * 10

    def knows_one(spec: LaunchSpec) -> str:
        assert spec.prompt_file
        return long if evicts(spec) and "512_1" not in spec.prompt_file.name else other

    shipped = [answered(f"p{n}", long, long if n < known_alike else other) for n in range(12)]
    stems = [f"prompt_512_{number}" for number in range(1, 5)]
    lab, pen = make_lab(tmp_path, knows_one, "RELATION_PROMPTS=2", stems=stems)
    for path in (tmp_path / "prompts").glob("prompt_512_*"):
        path.write_text(path.stem + TEXT[1:])
    found = unseen(lab, shipped, {f"p{n}" for n in range(12)})
    assert len(pen.launched) == launches
    assert len(found.answers) == launches // 2


def test_chance_of_a_table() -> None:
    """Six new prompts tell what two do not: 11 known answers alike, and 2 of the new ones."""
    long, other = "a long answer " * 20, "a long answer, but another one " * 10
    shipped = [answered(f"p{n}", long, long) for n in range(11)]
    standings = []
    for count, alike in ((2, 1), (6, 2), (6, 6)):
        new = [answered(f"n{n}", long, long if n < alike else other) for n in range(count)]
        [evidence] = table_evidence(shipped, new, {f"p{n}" for n in range(11)})
        standings.append(evidence.standing)
    assert standings == ["doubtful", "contradicted", "doubtful"]


def wrong_positions(spec: LaunchSpec) -> str:
    return twisted(spec, 3) if evicts(spec) else honest(spec)


def wrong_scores(spec: LaunchSpec) -> str:
    """One answer is the baseline's by chance."""
    lucky = spec.label == "prompt_512_1"
    return twisted(spec, 90) if evicts(spec) and not lucky else honest(spec)


@pytest.mark.parametrize(
    ("write", "lossy", "words"),
    [
        (honest, asked, ""),
        (wrong_positions, asked, "stays the baseline's for 0.6%"),
        (wrong_scores, asked, "the median of 4 answers stays the baseline's for 17.6%"),
        (honest, lambda spec: 1.5 if evicts(spec) else 1.0, ""),
        (
            honest,
            lambda spec: 3.2 if spec.config["kv_h2o_enable"] else 1.0,
            "contradicts: the more",
        ),
        (honest, lambda spec: 5.0 - asked(spec) if evicts(spec) else 1.0, "contradicts: the more"),
        (lambda _: "\n", asked, "no text"),
    ],
)
def test_more_eviction_keeps_less(
    write: Text, lossy: Callable[[LaunchSpec], float], words: str, tmp_path: Path
) -> None:
    """What is kept falls with the ratio, and a little eviction leaves some of an answer."""
    stems = [*STORY, *(f"prompt_512_{number}" for number in (2, 3))]
    lab, _ = make_lab(tmp_path, write, lossy=lossy, stems=stems)
    found = target_ratios(lab)
    verdict = judge(
        RELATIONS.test_more_eviction_keeps_less, resolve(suite="final"), target_ratios=found
    )
    assert verdict.outcome == ("fail" if words else "pass")
    assert words in verdict.reason


def test_a_little_goes_in_many_steps(tmp_path: Path) -> None:
    """So many steps come to 1.1, in as much time as the candidate has for one."""
    lab, _ = make_lab(tmp_path)
    candidate = lab.workload.relations.candidates[0]
    mild = ratios(candidate, 64)[MILD_RATIO].spec.config
    interval = int(candidate.config["kv_h2o_update_interval"])
    assert int(mild["kv_h2o_update_interval"]) * STEPS == interval
    assert pytest.approx(1.1, abs=0.001) == MILD_RATIO**STEPS
    assert int(mild["kv_h2o_block_tokens"]) < int(candidate.config["kv_h2o_block_tokens"])


def test_ratio_of_many_steps(tmp_path: Path) -> None:
    """A ratio that adds up over evictions is not that of what the last one kept."""
    lab, pen = make_lab(tmp_path)
    candidate = lab.workload.relations.ratios()[0][0]
    mild = pen.get(ratios(candidate, lab.knobs.integer("RELATION_TOKENS"))[MILD_RATIO].spec)
    row = json.loads(mild.metrics.read_text()) | {"h2o_lossy_ratio": 1.3}
    mild.metrics.write_text(json.dumps(row) + "\n")
    found = target_ratios(lab)
    verdict = judge(
        RELATIONS.test_more_eviction_keeps_less, resolve(suite="final"), target_ratios=found
    )
    assert verdict.outcome == "fail"
    assert "lossy ratio 1.3 with 98.8% of the tokens kept" in verdict.reason


def test_builds_of_a_kind_of_host(tmp_path: Path) -> None:
    """What two builds write on hosts of one kind is launched on hosts of that kind."""
    lab, pen = make_lab(tmp_path, honest, "H2O_HOSTS=pixel=a;server=b", "RELATION_BUILD=1")
    assert Builds(lab, plain=True, kind="server").texts.evidence
    assert pen.launched
    assert all(name.endswith("@server") for name in pen.launched)
