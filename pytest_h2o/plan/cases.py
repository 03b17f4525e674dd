"""The named ways to run: each suite's cases and the launches that they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, product
from pathlib import Path

from pytest_h2o.plan.knobs import KNOBS, Knobs, KnobValue, baseline_config, engine_config, scoped
from pytest_h2o.plan.kv_quant import OPTIONS
from pytest_h2o.plan.presets import distinct
from pytest_h2o.plan.prompts import bucket_of
from pytest_h2o.plan.seats import Hosts, kind_of, parse_hosts, seats_of
from pytest_h2o.plan.specs import LaunchSpec, Work
from pytest_h2o.plan.suites import CASE_PARTS

BASELINE = "baseline"
CANDIDATE = "candidate"
KV_QUANT = "kv_quant"
UNEVICTED = "unevicted"
# Candidate and second build, with H2O off and on.
BUILDS_PLAIN, BUILDS_FULL = "builds_plain", "builds_full"
# The knob that limits the decode drop.
DROP_KNOBS: Mapping[Work, str] = {
    "lengths": "DECODE_DROP_TARGET",
    "prompts": "LLM_DEMO_DECODE_DROP_TARGET",
}
STORE_TUNING: dict[str, KnobValue] = {
    "KV_LOSSLESS_STORE_DISABLE_FRONT": 1,
    "KV_LOSSLESS_STORE_BOOTSTRAP_TOKENS": 16,
    "KV_LOSSLESS_STORE_GROUPED_STEP_TOKENS": 384,
}

LLM_DEMO = [name for name in KNOBS if name.startswith("LLM_DEMO_")]
# Tokens decoded while KV is dumped, so that the dump has both stages.
DUMP_TOKENS = 96
# What real prompts have a knob of their own for and share with bench cases.
SHARED = ("DECODE_DROP_TARGET", "REQUIRE_DECODE_CACHE_HIT")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One named way to run.

    ``arm`` names the settings, so that cases which run the same settings share launches;
    ``replicate`` is the launch of that arm a case looks at. ``work`` says what its launches are,
    ``program`` what is launched for it. ``fixed`` knobs define the case, ``defaults`` may be
    overridden by the user. ``launch`` is the one launch of a case that is not made from knobs: a
    combination of a sweep. ``studied`` cases have a decode gate. ``judged`` cases have
    gates of their own. ``seats`` are those that its launches are on: one, or of real prompts a
    seat for each bucket in turn.
    Where ``holds_baseline`` the baseline's speed is held against the case's, not the other way
    round; ``plain`` ones have H2O off, and those of ``builds`` are held against the second build
    with the same settings.
    """

    name: str
    suite: str
    arm: str
    launch: LaunchSpec | None = None
    work: Work = "lengths"
    program: str = ""
    replicate: int = 1
    studied: bool = True
    holds_baseline: bool = False
    plain: bool = False
    builds: bool = False
    judged: bool = True
    seats: tuple[str, ...] = ("",)
    defaults: Mapping[str, KnobValue] = field(default_factory=dict)
    fixed: Mapping[str, KnobValue] = field(default_factory=dict)

    @property
    def quantises(self) -> bool:
        """Whether what is under test is quantised KV, with H2O off."""
        return self.suite == KV_QUANT

    @property
    def kind(self) -> str:
        """The kind of host that it is launched on."""
        return kind_of(self.seats[0])

    @property
    def drop_knob(self) -> str:
        """The knob that limits the decode drop of the case."""
        return DROP_KNOBS[self.work]

    def knobs(self, knobs: Knobs) -> Knobs:
        """``knobs`` as this case sees them."""
        return knobs.for_case(self.suite, self.defaults, self.fixed)

    def scoped(self, knobs: Knobs, *names: str) -> Case:
        """This case with the knobs that stand for another one in it."""
        below, above = dict(self.defaults), dict(self.fixed)
        for name in names:
            lower, upper = scoped(knobs, name)
            below, above = below | lower, above | upper
        return replace(self, defaults=below, fixed=above)


FULL: dict[str, KnobValue] = {"KV_LOSSLESS_RUNTIME_MODE": "full"}
STORE: dict[str, KnobValue] = {"KV_LOSSLESS_RUNTIME_MODE": "store"}
COVERAGE: dict[str, KnobValue] = FULL | {
    "KV_LOSSLESS_KEPT_SAMPLE_LAYERS": 0,
    "KV_LOSSLESS_KEPT_SAMPLE_TOKEN_INTERVAL": 0,
}
SHORT_CHUNKS: dict[str, KnobValue] = {"ONLINE_CHUNK_SEQ": 128, "ONLINE_FRAMING_BYTES": 16}
FULL_EVAL = Case(name="full_eval", suite="full_eval", arm="full", fixed=FULL, defaults=SHORT_CHUNKS)


def all_cases(
    knobs: Knobs,
    combinations: Iterable[LaunchSpec] = (),
    programs: Mapping[Work, str] | None = None,
) -> dict[str, Case]:
    """Every case by name; ``combinations`` are those of a sweep, ``programs`` what is launched for
    each kind of work.
    """
    cases = chain(
        _runtime(knobs),
        _m3(knobs),
        _single(knobs),
        _baseline_modes(knobs),
        _kv_quant(knobs),
        _unevicted(knobs),
        _builds(knobs),
        _sweep(combinations),
        [candidate_case(knobs)],
    )
    launched = programs or {}
    placed = _placed(cases, parse_hosts(knobs.text("H2O_HOSTS")))
    return {case.name: replace(case, program=launched.get(case.work, "")) for case in placed}


def _placed(cases: Iterable[Case], hosts: Hosts) -> Iterator[Case]:
    """The cases with their seats, on the first kind of host; of several kinds, those of prompt
    lengths once more on each.

    Cases of one arm share launches, so they share a seat.
    """
    kinds = list(hosts) or [""]
    arms: dict[str, int] = {}
    for case in cases:
        number = arms.setdefault(case.arm, len(arms))
        if case.work == "prompts":
            yield replace(case, seats=seats_of(hosts, kinds[0]))
            continue
        if len(kinds) == 1:
            yield _seated(case, hosts, kinds[0], number)
            continue
        # Under its own name it is what gates of other kinds of work look at.
        yield _seated(replace(case, judged=False), hosts, kinds[0], number)
        for kind in kinds:
            yield _seated(replace(case, name=f"{case.name}@{kind}"), hosts, kind, number)


def _seated(case: Case, hosts: Hosts, kind: str, number: int) -> Case:
    seats = seats_of(hosts, kind)
    return replace(case, seats=(seats[number % len(seats)],))


def candidate_case(knobs: Knobs, defaults: Mapping[str, KnobValue] | None = None) -> Case:
    """Real prompts; a knob that also judges bench cases counts for them only where no bench case is
    judged.
    """
    case = Case(
        name=CANDIDATE, suite="llm_demo", arm=CANDIDATE, work="prompts", defaults=defaults or {}
    )
    case = case.scoped(knobs, *LLM_DEMO)
    fixed = dict(case.fixed)
    for name in SHARED:
        special = f"LLM_DEMO_{name}"
        general = knobs.suite == case.suite and knobs.is_given(name) and not knobs.is_given(special)
        fixed[name] = fixed[special] = knobs[name if general else special]
    return replace(case, fixed=fixed)


def _runtime(knobs: Knobs) -> Iterator[Case]:
    full = Case(name="full_strict", suite="runtime", arm="full", fixed=FULL)
    store = Case(
        name="store_tuned", suite="runtime", arm="store", fixed=STORE, defaults=STORE_TUNING
    )
    coverage = Case(name="full_coverage", suite="runtime", arm="coverage", fixed=COVERAGE)
    for case, prefix in ((full, "FULL"), (store, "STORE"), (coverage, "COVERAGE")):
        yield case.scoped(knobs, f"{prefix}_DECOMP_BUDGET_US")


def _m3(knobs: Knobs) -> Iterator[Case]:
    full = Case(name="joint_full", suite="m3", arm="full", fixed=FULL)
    store = Case(name="joint_store", suite="m3", arm="store", fixed=STORE, defaults=STORE_TUNING)
    for case, runs in ((full, "FULL_RUNS"), (store, "STORE_RUNS")):
        for number in range(1, knobs.integer(runs) + 1):
            yield replace(case, name=f"{case.name}-{number}", replicate=number).scoped(
                knobs, "M3_DECOMP_BUDGET_US"
            )


def _single(knobs: Knobs) -> Iterator[Case]:
    """The suites of one bench case: no decompression budget but the user's."""
    smoke: dict[str, KnobValue] = {"PROMPTS": knobs.integers("PROMPTS")[:1], "REPEAT": 1}
    yield Case(
        name="store_smoke",
        suite="store_smoke",
        arm="store_smoke",
        studied=False,
        fixed=STORE,
        defaults=smoke,
    )
    yield FULL_EVAL


def _baseline_modes(knobs: Knobs) -> Iterator[Case]:
    """The runtime parts of all_in_one: one set of launches, judged against three decode
    baselines.
    """
    for knob, name in CASE_PARTS.items():
        if knobs.on(knob):
            mode: KnobValue = name.removeprefix("runtime_")
            fixed = FULL | {"DECODE_BASELINE_MODE": mode}
            yield Case(name=name, suite="all_in_one", arm="full", fixed=fixed)


def _kv_quant(knobs: Knobs) -> Iterator[Case]:
    """Each way to quantise KV: on prompts of given lengths, and on real ones."""
    options = knobs.integers("KV_QUANT_OPTIONS")
    if knobs.integer("ATTENTION_OPTION"):
        options = (knobs.integer("ATTENTION_OPTION"),)
    for option in dict.fromkeys(options):
        name = OPTIONS[option].name
        case = Case(name=name, suite=KV_QUANT, arm=name, fixed={"ATTENTION_OPTION": option})
        yield case
        yield replace(case, name=f"{name}_prompts", work="prompts")


def _unevicted(knobs: Knobs) -> Iterator[Case]:
    """The candidate with H2O on, and nothing for it to do: one layer that keeps all of its tokens.

    So it does what the baseline does, and next to nothing more.
    """
    if knobs.on("RELATION_SPEED"):
        yield Case(
            name=UNEVICTED,
            suite="relations",
            arm="nothing-to-evict",
            judged=False,
            holds_baseline=True,
            fixed={
                "DECODE_BASELINE_MODE": "paired",
                "H2O_TARGET_LOSSY_RATIO": 1.0,
                "H2O_KEEP_RATIO": 1.0,
                "H2O_LAYER_START": 0,
                "H2O_LAYER_END": 0,
                "KV_LOSSLESS_SCOPE": "none",
                "PROMPTS": (min(knobs.integers("PROMPTS")),),
                "GENS": (max(knobs.integers("GENS")),),
            },
        )


def _builds(knobs: Knobs) -> Iterator[Case]:
    """The build under test beside a second one, where there is one."""
    if knobs.on("RELATION_BUILD"):
        fixed = FULL | {"DECODE_BASELINE_MODE": "paired"}
        common = Case(
            name=BUILDS_FULL, suite="release", arm="full", judged=False, builds=True, fixed=fixed
        )
        yield common
        yield replace(common, name=BUILDS_PLAIN, arm=BASELINE, plain=True)


def _sweep(combinations: Iterable[LaunchSpec]) -> Iterator[Case]:
    """One case per combination; those that the engine runs in the same way share their launches."""
    specs = list(combinations)
    first = distinct(specs)
    for spec in specs:
        launch = first[spec.arm]
        yield Case(name=spec.arm, suite="sweep", arm=launch.arm, launch=launch)


def recorded_case(  # noqa: PLR0913  what is known of a recording
    name: str,
    knobs: Knobs,
    launch: LaunchSpec | None,
    *,
    suite: str = "",
    replicate: int = 1,
    defaults: Mapping[str, KnobValue] | None = None,
) -> Case:
    """The case of launches that something else recorded, with the decompression budget of the way
    they were run; without a ``suite`` it is one of its own.
    """
    config = launch.config if launch else {}
    store = config.get("kv_lossless_runtime_mode") == "store"
    all_layers = config.get("kv_lossless_kept_sample_layers") == 0
    prefix = "FULL"
    if suite == "m3":
        prefix = "M3"
    elif store:
        prefix = "STORE"
    elif all_layers:
        prefix = "COVERAGE"
    own = "full_eval" if knobs.suite == "full_eval" else "runtime"
    case = Case(
        name=name,
        suite=suite or own,
        arm=name,
        program=launch.program if launch else "",
        replicate=replicate,
        defaults=defaults or {},
    )
    return case.scoped(knobs, f"{prefix}_DECOMP_BUDGET_US")


def launches(
    case: Case,
    knobs: Knobs,
    prompts: Sequence[Path],
    *,
    replicate: int | None = None,
    repeat: int | None = None,
) -> list[LaunchSpec]:
    """The launches of one run: one per prompt and generation length, or one per prompt file."""
    number = replicate or case.replicate
    if case.launch:
        repeat = repeat or case.launch.repeat
        return [replace(case.launch, replicate=number, repeat=repeat, seat=case.seats[0])]
    knobs = case.knobs(knobs)
    common = LaunchSpec(
        program=case.program,
        arm=case.arm,
        replicate=number,
        config=baseline_config() if case.quantises or case.plain else engine_config(knobs),
        gen_tokens=knobs.integer("DECODE_TOKENS"),
        threads=knobs.integer("THREADS"),
        backend=knobs.text("BACKEND"),
        attention_option=knobs.integer("ATTENTION_OPTION"),
        timeout_s=knobs.number("LAUNCH_TIMEOUT_S"),
        seat=case.seats[0],
    )
    if case.work == "prompts":
        seats = _seats_by_bucket(case, prompts)
        return [
            replace(common, prompt_file=path, seat=seats[bucket_of(path.name)]) for path in prompts
        ]
    common = replace(common, repeat=repeat or knobs.integer("REPEAT"))
    lengths = dict.fromkeys(product(knobs.integers("PROMPTS"), knobs.integers("GENS")))
    return [replace(common, prompt_tokens=prompt, gen_tokens=gen) for prompt, gen in lengths]


def _seats_by_bucket(case: Case, prompts: Sequence[Path]) -> dict[str, str]:
    """The seat of the launches over the prompts of each bucket."""
    buckets = dict.fromkeys(bucket_of(path.name) for path in prompts)
    return dict(zip(buckets, cycle(case.seats), strict=False))


def baseline_of(candidate: LaunchSpec, paired_with: str = "") -> LaunchSpec:
    """The same launch with H2O and lossless off; of one that has them off, with plain KV."""
    plain = replace(candidate, arm=BASELINE, config=baseline_config(), paired_with=paired_with)
    if candidate.config == baseline_config():
        return replace(plain, attention_option=0)
    return plain


def of_second_build(candidate: LaunchSpec) -> LaunchSpec:
    """The same launch of the second build."""
    return replace(candidate, arm=f"{candidate.arm}-of-second-build", second_build=True)


def dump_launch(case: Case, knobs: Knobs, prompt: Path) -> LaunchSpec:
    """A launch with H2O and lossless off that writes its KV to ``kv_dump`` in its launch
    directory.
    """
    (launch,) = launches(case, knobs, [prompt])
    return replace(
        baseline_of(launch),
        arm="kv_dump",
        gen_tokens=DUMP_TOKENS,
        env=dump_environment(prompt.stem),
    )


def dump_environment(name: str) -> dict[str, str]:
    """The variables that make a program write its KV to ``kv_dump`` in its launch directory."""
    return {
        "MNN_KV_DUMP_DIR": "{directory}/kv_dump",
        "MNN_KV_DUMP_RUN_ID": name,
        "MNN_KV_DUMP_STAGE": "both",
    }


def has_dump(directory: Path) -> bool:
    """Whether a launch with :func:`dump_environment` left any KV in its ``directory``."""
    return any((directory / "kv_dump").rglob("meta_*.json"))
