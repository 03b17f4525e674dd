"""Log lines held against the prompt, the responses and each other: what a program that only prints
lines like those of an engine gets wrong.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.loglines import AGAIN_TOKENS
from pytest_h2o.parsers.repeats import LoggedBlock
from pytest_h2o.runs.ending import troubled_lines
from pytest_h2o.runtimes.launch_config import SIZE_LIMIT, model_files
from pytest_h2o.verdict import Evidence

PROMPT = "plans are made with the prompt in the cache"
RESPONSES = "every response was evicted"
LAYERS = "every H2O layer takes part"
ONCE = "a block is encoded once a response"
WAITED = "the waiting time is that of the log"
RETURNED = "every block that was submitted was encoded"
OWN = "every layer encodes its own values"
WELL = "the program ended without trouble"
IN_TIME = "blocks are encoded while tokens are decoded"
TIMED_ANEW = "every block was timed"
TRIGGER = "kv_h2o_trigger_min_tokens"
# Responses shorter than this end before slow encode workers do.
LEAST_DECODED, LATE = 32, 0.9
LEAST_TIMES, LEAST_US = 6, 100
# A busy machine makes one response wait a hundred times as long as others.
TIMES_OFF, LEAST_WAIT_US = 200.0, 200.0
LEAST_ALIKE, LEAST_TURNS = 3, 2


def plans_evidence(look: Look) -> Iterator[Evidence]:
    """What ``[H2O]`` lines say of a launch."""
    if look.facts.repeats.plans and look.row.prompt_tokens:
        for found in (_prompt(look), _responses(look), _planning(look)):
            if found:
                yield found


def blocks_evidence(look: Look) -> Iterator[Evidence]:
    """What ``[H2O-LOSSLESS]`` lines say of a launch."""
    if look.facts.repeats.blocks:
        for found in (
            _once(look),
            _every_time(look),
            _returned(look),
            _encoding(look),
            _in_time(look),
            _timed_anew(look),
            _alike(look),
        ):
            if found:
                yield found


def ended_well(look: Look) -> Evidence | None:
    """Needs stderr, or stdout where no text of a model is on it: what a runtime or a library says
    when something broke, whatever the exit code is.
    """
    outputs = [look.record.stderr]
    if look.spec.work == "lengths":
        outputs.append(look.record.stdout)
    broken = troubled_lines(*outputs)
    if not broken:
        return None
    return look.says(WELL, False, f"exit code 0, and it prints {broken[0]!r}")


def waited(look: Look) -> Evidence | None:
    """Needs ``async_wait_us=`` of lines, a running sum that begins with every response, and the
    column, its mean.

    What is waited for after a response's last line is in the column alone, so only a column that is
    far smaller is wrong.
    """
    column, responses = look.value("h2o_lossless_async_wait_us"), look.responses
    if column is None or not responses or look.facts.repeats.cut:
        return None
    mean = look.facts.repeats.least_wait_us(responses)
    if mean < LEAST_WAIT_US:
        return None
    text = f"h2o_lossless_async_wait_us is {column:g}, by the lines at least {mean:.4g}"
    if column > TIMES_OFF * mean:
        return look.doubts(WAITED, text)
    return look.says(WAITED, column >= mean / TIMES_OFF, text)


def _prompt(look: Look) -> Evidence | None:
    """A layer's first plan sees at least the prompt, wherever it is made."""
    prompt = look.row.prompt_tokens or 0
    firsts: dict[int, int] = {}
    for plan in look.facts.repeats.plans:
        firsts.setdefault(plan.layer, plan.kv)
    layer = min(firsts, key=lambda each: firsts[each])
    text = f"layer {layer} is first planned at kv={firsts[layer]}, of a prompt of {prompt} tokens"
    return look.says(PROMPT, firsts[layer] >= prompt, text)


def _responses(look: Look) -> Evidence | None:
    """After a plan a layer can grow by what is decoded; where it is longer, a response began."""
    prompt, responses = look.row.prompt_tokens or 0, look.responses
    trigger = look.setting("kv_h2o_trigger_min_tokens")
    if not responses or look.facts.repeats.cut or prompt < trigger:
        return None
    begun = max(_begins(look).values())
    text = f"the layer with most has {begun} first plans in {responses} responses"
    return look.says(RESPONSES, begun >= responses, text)


def _begins(look: Look) -> Counter[int]:
    """How often the plans of each layer begin again at the length of the prompt."""
    prompt, decoded = look.row.prompt_tokens or 0, look.row.decode_tokens or 0
    begins = Counter[int]()
    before: dict[int, tuple[int, int]] = {}
    for layer, kv, evict in look.facts.repeats.plans:
        last, left = before.get(layer, (0, 0))
        # A plan that was cancelled is made again a few tokens later; KV of earlier requests may
        # make the plan of the next one look like that.
        again = layer in before and 0 < kv - last <= AGAIN_TOKENS and kv - left < prompt
        if kv >= prompt and kv > left + decoded and not again:
            begins[layer] += 1
        begins[layer] += 0
        before[layer] = kv, kv - evict
    return begins


def _planning(look: Look) -> Evidence | None:
    """Needs the layers of the model, from its config or the lines."""
    planned = {plan.layer for plan in look.facts.repeats.plans}
    start, end = look.h2o_layers
    last = end if end >= 0 else _last_layer(look)
    if (
        start < 0
        or last < start
        or (look.row.prompt_tokens or 0) < look.setting("kv_h2o_trigger_min_tokens")
    ):
        return None
    asked = range(start, last + 1)
    idle = [layer for layer in asked if layer not in planned]
    if not idle:
        return look.says(LAYERS, True, f"plans for all layers {start} to {last}")
    names = ", ".join(map(str, idle[:5]))
    text = f"no plan for {len(idle)} of {len(asked)} H2O layers ({names})"
    # Layers take turns: in a short response not everyone has one.
    turns = (look.row.decode_tokens or 0) / max(1, look.setting("kv_h2o_update_interval"))
    if len(idle) > len(asked) / 2 and turns >= LEAST_TURNS:
        return look.says(LAYERS, False, text)
    return look.doubts(LAYERS, text)


def _once(look: Look) -> Evidence | None:
    """The same bytes of the same layer, encoded more often than there are responses."""
    responses = look.responses
    if not responses or look.facts.repeats.cut:
        return None
    times = Counter[LoggedBlock]()
    for block, count in look.facts.repeats.blocks.items():
        same = LoggedBlock(
            block.layer, block.start, block.tokens, block.raw, block.comp, number=None
        )
        times[same] += count
    block, most = max(times.items(), key=lambda each: each[1])
    text = (
        f"tokens {block.start} to {block.start + block.tokens} of layer {block.layer} are encoded "
        f"{most} times in {responses} responses"
    )
    if most <= responses:
        return look.says(ONCE, True, text)
    config = look.spec.config
    probing = config.get("kv_lossless_runtime_mode") == "probe"
    # Without a sampling interval real builds encode a block anew at every token that is due.
    if probing or not config.get("kv_lossless_kept_sample_token_interval"):
        return look.doubts(ONCE, text)
    return look.says(ONCE, False, text)


def _returned(look: Look) -> Evidence | None:
    """Needs ``updates=``, which counts a layer's blocks when they are submitted: a number that no
    line has is of a block that never came back.
    """
    numbers = defaultdict[int, set[int]](set)
    for block in look.facts.repeats.blocks:
        if block.number is not None:
            numbers[block.layer].add(block.number)
    lost = {layer: max(seen) - len(seen) for layer, seen in numbers.items() if min(seen) > 0}
    if look.facts.repeats.cut or not lost:
        return None
    layer = max(lost, key=lambda each: lost[each])
    text = f"{lost[layer]} of {max(numbers[layer])} blocks of layer {layer} have no line"
    return look.says(RETURNED, lost[layer] == 0, text)


def _every_time(look: Look) -> Evidence | None:
    """Needs ``updates=``, 1 for the first block of a layer in a response: the measured responses
    of a bench launch are alike, so a layer has one in each or in none.
    """
    responses = look.responses
    if not responses or look.spec.work != "lengths" or look.facts.repeats.cut:
        return None
    firsts = Counter[int]()
    for block, count in look.facts.repeats.blocks.items():
        if block.number == 1:
            firsts[block.layer] += count
    if not firsts:
        return None
    layer = min(firsts, key=lambda each: firsts[each])
    text = f"layer {layer} has a first block in {firsts[layer]} of {responses} responses"
    # The warm-up may be shorter than the rest.
    return look.says(RETURNED, firsts[layer] >= responses - 1, text)


def _hot_tokens(look: Look) -> int:
    """Tokens that are not encoded, at the end and at the beginning."""
    recent = look.setting("kv_lossless_hot_recent_tokens")
    return recent + look.setting("kv_lossless_hot_sink_tokens")


def _encoding(look: Look) -> Evidence | None:
    """Needs settings that ask for the front layers, or for all kept layers, in full mode."""
    config = look.spec.config
    if config.get("kv_lossless_runtime_mode") != "full" or look.facts.repeats.cut:
        return None
    scope = str(config.get("kv_lossless_scope"))
    asked: set[int] = set()
    if scope.startswith("front_n") and config.get("kv_lossless_front_sample_token_interval") == 1:
        asked.update(range(look.setting("kv_lossless_front_n")))
    if scope.endswith("h2o_kept") and config.get("kv_lossless_kept_sample_layers") == 0:
        start, end = look.h2o_layers
        last = end if end >= 0 else _last_layer(look)
        asked.update(range(max(0, start), last + 1))
    least = max(look.setting("kv_h2o_trigger_min_tokens"), _hot_tokens(look) + 1)
    if not asked or (look.row.prompt_tokens or 0) < least:
        return None
    absent = sorted(asked - {block.layer for block in look.facts.repeats.blocks})
    names = ", ".join(map(str, absent[:5]))
    text = f"blocks of {len(asked)} layers were asked for, and none is of {len(absent)} ({names})"
    return look.says(LAYERS, not absent, text if absent else "blocks of all layers asked for")


def _alike(look: Look) -> Evidence | None:
    """Equal sizes in different layers may be chance once, not as a rule."""
    layers_of = defaultdict[tuple[int, int], set[int]](set)
    for block in look.facts.repeats.blocks:
        if block.comp < block.raw:
            layers_of[block.tokens, block.comp].add(block.layer)
    alike = [layers for layers in layers_of.values() if len(layers) >= LEAST_ALIKE]
    if not alike or len(alike) * 2 < len(layers_of):
        return None
    text = f"{len(alike)} of {len(layers_of)} encoded sizes are those of blocks of several layers"
    return look.doubts(OWN, text)


def _in_time(look: Look) -> Evidence | None:
    """Needs ``kv=`` of first blocks in layers that have lost nothing: a long prompt makes them due
    at once, so that not all of them come with the last tokens.
    """
    prompt, decoded = look.row.prompt_tokens or 0, look.row.decode_tokens or 0
    begins = [kv for kv in look.facts.repeats.begins if prompt <= kv <= look.tokens + 1]
    due = max(_hot_tokens(look) + look.setting("kv_lossless_block_tokens"), look.setting(TRIGGER))
    if not begins or decoded < LEAST_DECODED or prompt < due or look.facts.repeats.cut:
        return None
    early = [kv for kv in begins if kv - prompt < LATE * decoded]
    text = f"{len(early)} of {len(begins)} first blocks, due at the prompt, come before the end"
    responses = look.responses or 1
    # The warm-up may end as early as that.
    return look.says(IN_TIME, len(early) > (responses > 1) * len(begins) / responses, text)


def _timed_anew(look: Look) -> Evidence | None:
    """Needs ``comp_us=`` of blocks: times that were measured hardly ever agree to the microsecond,
    but where the clock is coarse.
    """
    times = [us for us in look.facts.repeats.encode_us if us >= LEAST_US]
    different = len(set(times))
    if len(times) < LEAST_TIMES or all(us % 1000 == 0 for us in times):
        return None
    text = f"encoding {len(times)} blocks took {different} different times"
    return look.says(TIMED_ANEW, 2 * different > len(times), text)


def _last_layer(look: Look) -> int:
    """The last layer of the model, or the last one that a line names."""
    named = max(look.facts.layers, default=-1)
    path = look.record.config_path
    model = _json(model_files(_json(path), path)["llm_config"])
    for key in ("layer_nums", "num_hidden_layers"):
        count = model.get(key)
        if isinstance(count, int) and 0 < count <= 1 << 16:
            return max(named, count - 1)
    return named


def _json(path: Path) -> Mapping[str, object]:
    """A JSON object, empty where there is none."""
    try:
        if not path.is_file() or path.stat().st_size > SIZE_LIMIT:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
