"""Defects of runtimes: each function changes what one launch prints or leaves behind; its docstring
says how.

Standard library only: stand-in programs import this module as well.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from imitator import CANDIDATE_TPS, Launch

H2O_LINE = re.compile(r"\[H2O\] layer=.*\n")
LOSSLESS_LINE = re.compile(r"\[H2O-LOSSLESS\] layer=.*\n")
OWN_COLUMNS = "h2o_evictions_planned"


def _one(launch: Launch, replicate: str = "-r1") -> bool:
    return launch.name.endswith(replicate)


def counts_dropped_plans(launch: Launch) -> None:
    """Eviction plans are made and dropped; only the counters tell."""
    if not launch.is_baseline:
        launch.put("h2o_evictions_applied", 0)


def kv_never_shrinks(launch: Launch) -> None:
    """Evictions are counted as applied, and the KV cache is as long as ever."""
    if not launch.is_baseline:
        launch.put("h2o_kv_tokens_end", launch.prompt_tokens + launch.decode_tokens)


def bytes_stay(launch: Launch) -> None:
    """Evicted tokens are no longer counted, and their bytes are still held."""
    if not launch.is_baseline:
        launch.cells["h2o_kv_resident_mb"] = launch.cells["h2o_kv_peak_mb"]


def effective_ratio_of_one(launch: Launch) -> None:
    """The lossy ratio is that of the plans, the H2O layers hold everything."""
    if not launch.is_baseline:
        launch.put("h2o_effective_ratio", 1.02)


def plans_again_and_again(launch: Launch) -> None:
    """A program without counters plans the same eviction at every update, and its cache grows
    on.
    """
    if launch.is_baseline:
        return
    columns = list(launch.cells)
    launch.cells = {name: launch.cells[name] for name in columns[: columns.index(OWN_COLUMNS)]}
    lines = [
        line.replace(kv, f"kv={int(kv[3:]) + 16 * turn}")
        for line in H2O_LINE.findall(launch.stdout)
        for kv in re.findall(r"kv=\d+", line)
        for turn in range(8)
    ]
    launch.stdout = H2O_LINE.sub("", launch.stdout) + "".join(lines)


def ratio_from_target(launch: Launch) -> None:
    """The lossy ratio is the one that was asked for, not that of the bytes kept."""
    if not launch.is_baseline:
        launch.put("h2o_lossy", 3.2, decimals=3)


def ratio_without_plans(launch: Launch) -> None:
    """A lossy ratio without any eviction plan in a log that has everything else."""
    if not launch.is_baseline:
        launch.stdout = H2O_LINE.sub("", launch.stdout)


def h2o_keys_ignored(launch: Launch) -> None:
    """The program reads keys of another spelling and runs without H2O."""
    if not launch.is_baseline and launch.program == "llm_bench":
        other = Launch(launch.directory, {}, launch.program, launch.label, launch.repeat)
        other.imitate(Path(__file__).parents[1] / "data" / "honest" / f"{launch.label}-baseline")
        launch.cells, launch.stdout = other.cells, other.stdout


def config_overwritten(launch: Launch) -> None:
    """Something rewrites the generated config before the program reads it."""
    if not launch.is_baseline:
        changed = {**launch.config, "kv_h2o_target_lossy_ratio": 2.0}
        (launch.directory / "config.json").write_text(json.dumps(changed))


def other_config_file(launch: Launch) -> None:
    """The program reads a config file of its own."""
    launch.stdout = re.sub(
        r"(?m)^config path is .*$", "config path is /opt/model/default.json", launch.stdout
    )


def recent_tokens_of_its_own(launch: Launch) -> None:
    """Fewer recent tokens are protected than were asked for."""
    launch.stdout = launch.stdout.replace(" recent=96 ", " recent=32 ")


def never_decoded(launch: Launch) -> None:
    """Blocks are encoded and never decoded."""
    for column in (
        "h2o_lossless_decomp_us",
        "h2o_lossless_decode_cache_hit",
        "h2o_lossless_decode_cache_miss",
    ):
        launch.put(column, 0)


def decodes_to_something_else(launch: Launch) -> None:
    """The decoder returns other bytes, and nobody compares them."""
    launch.put("h2o_lossless_roundtrips", 0)


def nothing_decompressed(launch: Launch) -> None:
    """Real prompts: a ratio of bytes of which none was decoded."""
    if not launch.is_baseline:
        launch.metrics["h2o_lossless_decompressed_bytes"] = 0


def lossless_ratio_invented(launch: Launch) -> None:
    """The lossless ratio is not that of the bytes beside it."""
    if not launch.is_baseline:
        launch.put("h2o_lossless", 4.0, decimals=3)


def blocks_without_trace(launch: Launch) -> None:
    """A lossless ratio without any encoded block in a log that has the eviction plans."""
    if not launch.is_baseline:
        launch.stdout = LOSSLESS_LINE.sub("", launch.stdout)


def restore_not_timed(launch: Launch) -> None:
    """Decode time stops while blocks are restored. The times are given: those of a busy machine may
    hide as much.
    """
    launch.record["seconds"] = 0.2 if launch.is_baseline else 0.6


def restore_longer_than_decode(launch: Launch) -> None:
    """In store mode the decoding thread waits longer for restored values than all decoding is said
    to take.
    """
    if launch.arm == "store":
        launch.put("h2o_lossless_decomp_us", 45_000)


def slower_clock(launch: Launch) -> None:
    """The times that are reported are longer than the launch was."""
    if not launch.is_baseline:
        launch.set_decode(40)


def tokens_requested(launch: Launch) -> None:
    """The speed counts the tokens that were requested, not those that were produced."""
    if not launch.is_baseline:
        tps = launch.decode_tps
        launch.metrics["decode_tokens"] = 512
        launch.set_decode(tps * 512 / 64)


def stops_early(launch: Launch) -> None:
    """The candidate meets an end token after a few tokens, where the context is short and decoding
    is fast.
    """
    if not launch.is_baseline:
        launch.metrics["decode_tokens"] = 8
        launch.set_decode(launch.decode_tps * 1.5)


def bench_stops_early(launch: Launch) -> None:
    """The measured response ends at an end token, and the speed counts every token that was asked
    for.
    """
    if not launch.is_baseline:
        end = float(launch.cells["h2o_kv_tokens_end"].split(" ")[0])
        launch.put("h2o_kv_tokens_end", end - 30)


def baseline_with_h2o(launch: Launch) -> None:
    """H2O is on in the baseline as well."""
    if launch.is_baseline:
        launch.put("h2o_lossy", 3.1, decimals=3)


def baseline_logs_plans(launch: Launch) -> None:
    """The baseline prints ratios of 1 and evicts all the same."""
    if launch.is_baseline:
        launch.stdout += (
            "[H2O] layer=2 kv=521 keep_ratio=0.3244 evict=352 lossy_ratio=3.0826 evict_us=7\n"
        )


def baseline_on_other_prompts(launch: Launch) -> None:
    """The baseline is run on longer prompts than the candidate."""
    if launch.is_baseline:
        launch.metrics["prompt_tokens"] = launch.prompt_tokens + 200
        launch.metrics["h2o_kv_tokens_end"] += 200
        launch.summarise()


def baseline_with_one_thread(launch: Launch) -> None:
    """The baseline has one thread, the candidate two."""
    if launch.is_baseline:
        launch.cells["threads"] = "1"


def baseline_of_another_model(launch: Launch) -> None:
    """The baseline loads a larger model."""
    if launch.is_baseline:
        launch.cells["model"] = "weights-large"


def rebuilt_between(launch: Launch) -> None:
    """The binary was built anew between baseline and candidate."""
    if not launch.is_baseline:
        launch.record["inputs"]["llm_bench"] = "18112-1700000000000000000-00ff00ff00ff00ff"


def numbers_of_the_baseline(launch: Launch) -> None:
    """The candidate's speeds are those of the baseline, digit for digit."""
    baseline = launch.directory.with_name(launch.name.replace("-full-", "-baseline-")) / "log.md"
    if launch.arm == "full" and baseline.is_file():
        launch.cells["speed(tok/s)"] = re.search(r"\S+ ± \S+<br>\S+ ± \S+", baseline.read_text())[0]


def stale_log(launch: Launch) -> None:
    """The second launch leaves the first one's log."""
    if _one(launch, "x2-full-r2"):
        first = launch.directory.with_name(launch.name.replace("-r2", "-r1")) / "log.md"
        launch.cells["speed(tok/s)"] = re.search(r"\S+ ± \S+<br>\S+ ± \S+", first.read_text())[0]


def log_cut_off(launch: Launch) -> None:
    """The log of the last row ends in the middle of it."""
    if launch.label.startswith("p1024"):
        launch.cut = 200


def no_log(launch: Launch) -> None:
    """The program ends well and writes no table for the last prompt length."""
    if launch.label.startswith("p1024"):
        launch.cells = {}
        launch.directory.joinpath("log.md").unlink(missing_ok=True)


def rows_twice(launch: Launch) -> None:
    """Every row is printed twice."""
    launch.after = launch.table().splitlines()[-1] + "\n"


def row_of_another_length(launch: Launch) -> None:
    """The program runs a shorter prompt than it was asked to."""
    launch.cells["llm_demo"] = "prompt=64<br>decode=48"


def one_repeat(launch: Launch) -> None:
    """One repeat is measured where several were asked for."""
    for column, cell in launch.cells.items():
        launch.cells[column] = re.sub(r"± [\d.]+", "± 0.00", cell)


def fallback_absent(launch: Launch) -> None:
    """The binary has no fallback column."""
    launch.cells.pop("h2o_lossless_fallback")


def fallback_negative(launch: Launch) -> None:
    """The fallback counter starts at -1."""
    launch.put("h2o_lossless_fallback", -1)


def fallback_now_and_then(launch: Launch) -> None:
    """One block in three repeats could not be decoded."""
    launch.put("h2o_lossless_fallback", 0.33, 0.58)


def queue_peak_absent(launch: Launch) -> None:
    """The binary has no queue column."""
    launch.cells.pop("h2o_lossless_queue_peak")


def queue_peak_nan(launch: Launch) -> None:
    """The queue peak is the mean of no repeat."""
    launch.cells["h2o_lossless_queue_peak"] = "nan ± nan"


def queue_peak_negative(launch: Launch) -> None:
    """The queue counter underflows."""
    launch.put("h2o_lossless_queue_peak", -1)


def queue_too_long(launch: Launch) -> None:
    """Encoding does not keep up in one row."""
    if launch.label.startswith("p512") and not launch.is_baseline:
        launch.put("h2o_lossless_queue_peak", 40)


def queue_not_a_number(launch: Launch) -> None:
    """The queue cell holds a word."""
    launch.cells["h2o_lossless_queue_peak"] = "many"


def infinite_speeds(launch: Launch) -> None:
    """Nothing was decoded: speeds are infinite and their spread is not a number."""
    launch.cells["speed(tok/s)"] = "inf ± -nan<br>inf ± -nan"


def encodes_inline(launch: Launch) -> None:
    """Encode workers are configured, and everything is encoded on the decoding thread."""
    if not launch.is_baseline:
        launch.put("h2o_lossless_async_queue_peak", 0)


def cache_never_hits(launch: Launch) -> None:
    """The decode cache is asked for the same blocks at every token and never has one."""
    if launch.arm == "store":
        launch.put("h2o_lossless_decode_cache_hit", 0)
        launch.put("h2o_lossless_decode_cache_miss", 280)


def hits_without_blocks(launch: Launch) -> None:
    """Cache hits are counted though no block was ever encoded."""
    if not launch.is_baseline:
        blocks_without_trace(launch)
        for column in ("h2o_lossless_raw_mb", "h2o_lossless_comp_mb"):
            launch.put(column, 0)
        launch.put("h2o_lossless", 1, decimals=3)
        launch.put("h2o_lossless_decode_cache_hit", 4)


def slow_bucket(launch: Launch) -> None:
    """Real prompts: 10 % slower than the baseline at 512 tokens only."""
    if not launch.is_baseline and "_512_" in launch.label:
        launch.set_decode(launch.decode_tps * 0.9 * 200 * 100 / CANDIDATE_TPS)


def slow_at_length(launch: Launch) -> None:
    """Real prompts: 10 % slower than the baseline at long context only."""
    if not launch.is_baseline and "_2048_" in launch.label:
        launch.set_decode(launch.decode_tps * 0.9 * 200 * 100 / CANDIDATE_TPS)


def slow(launch: Launch) -> None:
    """Bench: 10 % slower than the baseline."""
    if not launch.is_baseline:
        launch.set_decode(launch.decode_tps * 0.9 * 200 * 100 / CANDIDATE_TPS)


def slow_at_one_length(launch: Launch) -> None:
    """Bench: 10 % slower than the baseline at the longer of two prompts only."""
    if "p1024" in launch.label:
        slow(launch)


def blocks_of_192(launch: Launch) -> None:
    """Blocks are encoded in spans of 192 tokens, a constant of an older version."""
    launch.stdout = launch.stdout.replace(" tokens=128 ", " tokens=192 ")


def other_mode(launch: Launch) -> None:
    """The program runs in store mode whatever the config says."""
    launch.stdout = launch.stdout.replace(" mode=1 ", " mode=2 ")


def budget_in_exponents(launch: Launch) -> None:
    """Decoding takes more than a second; the number is printed with an exponent."""
    if not launch.is_baseline:
        launch.cells["h2o_lossless_decomp_us"] = "1.2e+06 ± 0.00"


def prompt_crashes(launch: Launch) -> None:
    """One prompt ends with a segmentation fault and is left out of the averages."""
    if launch.label == "prompt_512_2" and not launch.is_baseline:
        launch.record |= {
            "status": "failed",
            "reason": "ended by signal 11 (SIGSEGV)",
            "returncode": -11,
        }


def crashes(launch: Launch) -> None:
    """One prompt length ends with a segmentation fault after its row was written."""
    if launch.label.startswith("p1024") and not launch.is_baseline:
        launch.returncode = -11


def record_of_an_earlier_run(launch: Launch) -> None:
    """The metrics file was appended to, and its last record is older than the run."""
    if not launch.is_baseline and launch.label == "prompt_512_1":
        launch.metrics["decode_us"] *= 3


def skips_a_prompt(launch: Launch) -> None:
    """One prompt is read as a comment: the program ends well after nothing."""
    if launch.label == "prompt_512_2":
        launch.metrics["prompt_tokens"] = launch.metrics["decode_tokens"] = 0


def evicts_on_no_prompt(launch: Launch) -> None:
    """Real prompts: nothing is ever evicted."""
    if not launch.is_baseline:
        for key in launch.metrics:
            if key.startswith("h2o_") and (
                "evict" in key or key.endswith(("keep_ratio", "lossy_ratio"))
            ):
                launch.metrics[key] = 1 if key.endswith("ratio") else 0
        launch.stdout = H2O_LINE.sub("", launch.stdout)


def init_error(launch: Launch) -> None:
    """The model cannot be loaded, and the program ends with exit code 0."""
    if not launch.is_baseline:
        launch.stdout, launch.metrics = "LLM init error\n", {}


def _text(launch: Launch, text: str) -> None:
    """Replace what the model wrote; log lines and summary stay."""
    lines = "".join(line for line in re.findall(r"\[H2O.*\n", launch.stdout))
    head, _, rest = launch.stdout.partition("\nprompt file is ")
    summary = rest[rest.rindex("\n" + "#" * 33 + "\n") :]
    launch.stdout = f"{head}\nprompt file is {rest.partition(chr(10))[0]}\n{lines}{text}{summary}"


def scrambled_text(launch: Launch) -> None:
    """Under eviction the model writes random pieces of words."""
    if not launch.is_baseline:
        letters = "etaoinshrdlucmfwypvbgkjqxz .,;(){}=_0123456789QXZ"
        _text(
            launch,
            "".join(
                letters[(i * 7919 + i * i * 31 + len(launch.label) * 13) % 49] for i in range(220)
            ),
        )


def one_word_for_ever(launch: Launch) -> None:
    """Under eviction the model writes one word over and over."""
    if not launch.is_baseline:
        _text(launch, " the" * 64)


def one_answer_scrambled(launch: Launch) -> None:
    """Under eviction the model writes random letters for one long prompt, and text for the
    others.
    """
    if launch.label == "prompt_2048_1":
        scrambled_text(launch)


def canned_answer(launch: Launch) -> None:
    """Under eviction every prompt is answered with the same paragraph."""
    if not launch.is_baseline:
        _text(
            launch,
            "The cache holds what was read before. When it is full, some of it has to go. " * 3,
        )


def fallback_in_lines_only(launch: Launch) -> None:
    """Every block falls back by its log line, and the column counts none."""
    if not launch.is_baseline:
        launch.stdout = launch.stdout.replace(" fallback=0", " fallback=1")


def restores_fail(launch: Launch) -> None:
    """Blocks cannot be restored, as the program itself prints, and the column counts none."""
    if not launch.is_baseline:
        launch.stdout += "\n" + "[H2O-LOSSLESS] scatter restore failed layer=2 start=0\n" * 20


def restores_in_milliseconds(launch: Launch) -> None:
    """Restore time is printed in ms where µs are due, so it meets any budget."""
    if not launch.is_baseline:
        launch.stdout = re.sub(r" decomp_us=\d+", " decomp_us=4000", launch.stdout)
        launch.put("h2o_lossless_decomp_us", 12)


def queue_in_lines_only(launch: Launch) -> None:
    """400 tasks wait by the log lines, and the column's peak is a few."""
    if not launch.is_baseline:
        launch.stdout = re.sub(r" queue=\d+", " queue=400", launch.stdout)


def best_layer_for_all(launch: Launch) -> None:
    """Real prompts: the record holds bytes and ratio of the layer that shrinks best."""
    lines = [dict(word.split("=", 1) for word in line.split() if "=" in word)
             for line in LOSSLESS_LINE.findall(launch.stdout)]  # fmt: skip
    if lines and not launch.is_baseline:
        best = max(lines, key=lambda line: float(line["eff_ratio"]))
        raw, comp = int(best["raw"]), int(best["eff_comp"])
        launch.metrics |= {
            "h2o_lossless_raw_bytes": raw, "h2o_lossless_decompressed_bytes": raw,
            "h2o_lossless_compressed_bytes": comp, "h2o_lossless_ratio": round(raw / comp, 5),
        }  # fmt: skip


def evicted_tokens_inflated(launch: Launch) -> None:
    """Real prompts: ten times as many evicted tokens are counted as were planned."""
    if launch.metrics and not launch.is_baseline:
        launch.metrics["h2o_total_evict_tokens"] *= 10


def keeps_too_few(launch: Launch) -> None:
    """Plans keep 40 tokens, fewer than the sink and recent ones that their lines promise."""
    if not launch.is_baseline:
        launch.stdout = re.sub(
            r"kv=(\d+) (keep_ratio=\S+) evict=\d+",
            lambda plan: f"kv={plan[1]} {plan[2]} evict={int(plan[1]) - 40}", launch.stdout,
        )  # fmt: skip


def evicts_front_layers(launch: Launch) -> None:
    """Layers 0 and 1 lose tokens, though H2O begins at layer 2."""
    if not launch.is_baseline:
        plans = H2O_LINE.findall(launch.stdout)[:2]
        launch.stdout += "\n" + "".join(
            re.sub(r"layer=\d+", f"layer={at}", plan) for at, plan in enumerate(plans)
        )


def deletes_its_config(launch: Launch) -> None:
    """The program removes the config it was given, so nobody can tell what it read."""
    if not launch.is_baseline:
        (launch.directory / "config.json").unlink()


def quantised_attention_in_table(launch: Launch) -> None:
    """The candidate's table, unlike the baseline's, says that attention is quantised."""
    if not launch.is_baseline:
        launch.cells = {"attentionOption": "Int8 Q,K,V", **launch.cells}


def more_tokens_than_asked(launch: Launch) -> None:
    """Real prompts: 120 tokens are counted where 64 were asked for, which doubles the speed."""
    if launch.metrics and not launch.is_baseline:
        speed = launch.decode_tps * 120 / launch.decode_tokens
        launch.metrics["decode_tokens"] = 120
        launch.set_decode(speed)


def rewrites_the_baseline(launch: Launch) -> None:
    """The candidate is slow, and halves the speeds that the baselines beside it have printed."""
    if not launch.is_baseline:
        launch.set_decode(launch.decode_tps * 0.6)
        for table in launch.directory.parent.glob("bench-*baseline*/log.md"):
            text = table.read_text()
            table.write_text(re.sub(r"<br>(\d+)", lambda speed: f"<br>{int(speed[1]) // 2}", text))


def record_is_a_pipe(launch: Launch) -> None:
    """Real prompts: what should be the metrics file is a pipe that nobody writes to."""
    if launch.metrics and not launch.is_baseline:
        launch.metrics = {}
        os.mkfifo(launch.directory / "metrics.jsonl")


def samples_while_it_decodes(launch: Launch) -> None:
    """Real prompts: restoring is timed as sampling, which no decode speed covers."""
    if launch.metrics and not launch.is_baseline:
        launch.metrics["sample_us"] = launch.metrics["decode_us"] * 5
        launch.record["seconds"] += launch.metrics["sample_us"] / 1e6
        launch.summarise()


def reads_a_third(launch: Launch) -> None:
    """Real prompts: the candidate reads a third of each prompt and reports all of it."""
    if launch.metrics and not launch.is_baseline:
        launch.metrics["prefill_us"] //= 3
        launch.summarise()


def answers_another_prompt(launch: Launch) -> None:
    """Real prompts: a cache serves the answer to another request."""
    if launch.label == "prompt_512_1" and not launch.is_baseline:
        other = (
            launch.directory.with_name(launch.name.replace("512_1-candidate", "2048_1-baseline"))
            / "stdout"
        )
        _, _, rest = other.read_text(errors="surrogateescape").partition("\nprompt file is ")
        _text(launch, rest.partition("\n")[2].rpartition("\n" + "#" * 33 + "\n")[0])


def decodes_faster_than_memory(launch: Launch) -> None:
    """Real prompts: decode time is in no unit in which that many bytes can be moved."""
    if launch.metrics and not launch.is_baseline:
        launch.stdout = re.sub(r" decomp_us=\d+", " decomp_us=0", launch.stdout)
        launch.metrics["h2o_lossless_decompress_us"] = 0.001
