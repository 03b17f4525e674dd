"""Speed and memory of the embedded engine: against PyTorch, the price of compression, start-up,
encode overlap.

    python tests/bench/bench_engine.py [SECTION...] [--rounds N] [--threads N] [--torch PYTHON]

Every measurement is a fresh process, and each round runs all variants of a section in another
order, so that slow phases of the machine meet all of them. Ratios are taken within a round; printed
are their median and 95 % interval by the plugin's own model of noise. A round holds the
machine-wide launch lock. The ``torch`` section takes an interpreter that has torch and
transformers; it runs ``torch_decode.py`` beside this one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_h2o.decode.effects import quantiles  # noqa: E402
from pytest_h2o.engine.config import SHIPPED  # noqa: E402
from pytest_h2o.runs.locks import hold, machine_lock_path  # noqa: E402

LENGTHS = (512, 1024, 2048)
DECODED = 192  # eviction takes turns: the first 16 tokens still see most of the full cache
H2O = {
    "kv_h2o_enable": True,
    "kv_h2o_block_tokens": 32,
    "kv_h2o_sink_tokens": 16,
    "kv_h2o_recent_tokens": 96,
    "kv_h2o_target_lossy_ratio": 3.0,
    "kv_h2o_trigger_min_tokens": 384,
}
LOSSLESS = {
    "kv_lossless_enable": True,
    "kv_lossless_runtime_enable": True,
    "kv_lossless_codec": "gear_delta",
    "kv_lossless_scope": "front_n_and_h2o_kept",
    "kv_lossless_runtime_mode": "full",
    "kv_h2o_trigger_min_tokens": 384,
}
STORE = LOSSLESS | {"kv_lossless_runtime_mode": "store", "kv_lossless_store_disable_front": True}
BUSY = (
    LOSSLESS
    | {  # every layer encodes a small block every few tokens, so that there is work to overlap
        "kv_lossless_kept_sample_layers": 0,
        "kv_lossless_block_tokens": 16,
        "kv_lossless_hot_recent_tokens": 64,
        "kv_h2o_update_interval": 1,
    }
)
Values = dict[str, float]


@dataclass
class Variant:
    """One thing to measure: ``run`` gives a round's values by name; the rest collects them."""

    name: str
    run: Callable[[], Values]
    values: list[Values] = field(default_factory=list)

    def column(self, key: str) -> list[float]:
        """The values named ``key``, round by round."""
        return [values[key] for values in self.values]

    def speeds(self, *, by_cost: bool) -> list[float]:
        """Round by round: the inverse of ``decode_cost``, or tokens/s."""
        return (
            [1 / cost for cost in self.column("decode_cost")]
            if by_cost
            else self.column("decode_tps")
        )


@dataclass(frozen=True)
class Setting:
    """What the command line chose."""

    rounds: int
    threads: int
    torch: str
    folder: Path

    def config(self, name: str, settings: dict[str, object]) -> Path:
        """An engine config of the shipped model."""
        path = self.folder / f"{name}.json"
        path.write_text(
            json.dumps(
                {**json.loads((SHIPPED / "h2o.json").read_text()), "base_dir": f"{SHIPPED}/"}
                | settings
            )
        )
        return path

    def measure(self, variants: Sequence[Variant]) -> None:
        """All rounds, after one that does not count."""
        for turn in range(self.rounds + 1):
            first = turn % len(variants)
            with hold(machine_lock_path()):
                for variant in chain(variants[first:], variants[:first]):
                    values = variant.run()
                    if turn:
                        variant.values.append(values)


def launch(command: Sequence[object]) -> tuple[str, float]:
    """What the process printed, and the peak of its resident memory in MB. RuntimeError if it
    fails.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        assert process.stdout
        text = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{command}: {errors.read().decode(errors='replace')}")
    return text, usage.ru_maxrss / 1024


def bench(setting: Setting, config: Path, prompt: int) -> Values:
    """One ``h2o-llm-bench`` process: everything its JSON says of the second response, and its peak
    memory.
    """
    report = setting.folder / "report.json"
    words = ["-t", setting.threads, "-kv", "true", "-p", prompt, "-n", DECODED, "-rep", 1]
    _, peak = launch(
        [
            sys.executable,
            "-m",
            "pytest_h2o.engine.bench",
            "-m",
            config,
            *map(str, words),
            "-j",
            report,
        ]
    )
    return json.loads(report.read_text())["results"][0] | {"peak_mb": peak}


def compare(title: str, variants: Sequence[Variant]) -> Iterator[str]:
    """A table of the variants' median tokens/s, and of their speed as a multiple of the first
    one's.

    Where all of them are the embedded engine the multiple is taken from ``decode_cost``, the time
    of a token over that of a fixed calculation beside it, which other load on the machine disturbs
    far less.
    """
    yield (
        f"\n{title}\n\n| variant | decode tok/s | speed relative to {variants[0].name} | 95 % "
        f"interval |"
    )
    yield "| --- | ---: | ---: | --- |"
    speeds = [
        variant.speeds(by_cost=all("decode_cost" in v.values[0] for v in variants))
        for variant in variants
    ]
    for variant, speed in zip(variants, speeds, strict=True):
        ratios = [math.log(a / b) for a, b in zip(speed, speeds[0], strict=True)]
        low, middle, high = quantiles([ratios], (0.025, 0.5, 0.975))
        ratio = f"{math.exp(middle):.3f} | {math.exp(low):.3f} to {math.exp(high):.3f}"
        yield f"| {variant.name} | {median(variant.column('decode_tps')):.1f} | {ratio} |"


def against_torch(setting: Setting) -> Iterator[str]:
    """Decode tokens/s against transformers, on the same weights and number of threads."""
    config, script = setting.config("off", {}), Path(__file__).parent / "torch_decode.py"

    def transformers(prompt: int) -> Values:
        text, _ = launch([setting.torch, script, SHIPPED, setting.threads, prompt, DECODED])
        return json.loads(text)

    for prompt in LENGTHS:
        variants = [
            Variant("transformers", partial(transformers, prompt)),
            Variant("h2o-llm-bench", partial(bench, setting, config, prompt)),
        ]
        setting.measure(variants)
        yield from compare(f"Decode tok/s from KV {prompt} on, {setting.threads} threads", variants)


def compression(setting: Setting) -> Iterator[str]:
    """What eviction gains and what lossless coding costs, at each KV length."""
    configs = {
        "off": {},
        "lossless full": LOSSLESS,
        "lossless store": STORE | {"kv_lossless_store_disable_front": False},
        "H2O": H2O,
        "H2O + full": LOSSLESS | H2O,
        "H2O + store": STORE | H2O,
    }
    paths = {
        name: setting.config(name.replace(" ", ""), settings) for name, settings in configs.items()
    }
    for prompt in LENGTHS:
        variants = [
            Variant(name, partial(bench, setting, path, prompt)) for name, path in paths.items()
        ]
        setting.measure(variants)
        yield from compare(
            f"Decode tok/s from KV {prompt} on, {setting.threads} threads", variants[:4]
        )
        yield from compare("The same, against H2O alone", variants[3:])
        yield (
            f"\nPeak resident memory: at most "
            f"{max(max(v.column('peak_mb')) for v in variants):.0f} MB (target 300)"
        )


def codecs(setting: Setting) -> Iterator[str]:
    """What each block codec costs in both modes, where the front layers are encoded too."""
    configs: dict[str, dict[str, object]] = {"off": {}}
    for mode in ("full", "store"):
        for codec in ("fp16_gear_predictive_v3", "rope_row", "row_reference"):
            chosen = {
                "kv_lossless_runtime_mode": mode,
                "kv_lossless_store_disable_front": False,
                "kv_lossless_codec_runtime": codec,
            }
            configs[f"{mode}, {codec}"] = LOSSLESS | chosen
    variants = []
    for name, settings in configs.items():
        path = setting.config(name.replace(", ", "_"), settings)
        variants.append(Variant(name, partial(bench, setting, path, 1024)))
    setting.measure(variants)
    yield from compare(f"Decode tok/s from KV 1024 on, {setting.threads} threads", variants)
    yield "\n| variant | ratio of the encoded blocks | encode ms | decode ms |"
    yield "| --- | ---: | ---: | ---: |"
    for variant in variants[1:]:
        keys = ("h2o_lossless_ratio", "h2o_lossless_comp_us", "h2o_lossless_decomp_us")
        ratio, encode, decode = [median(variant.column(key)) for key in keys]
        yield f"| {variant.name} | {ratio:.3f} | {encode / 1e3:.1f} | {decode / 1e3:.1f} |"


def overlap(setting: Setting) -> Iterator[str]:
    """Encoding beside decoding with 0, 1 and 2 workers, where every layer encodes a block every 16
    tokens.
    """
    variants = []
    for workers in (0, 1, 2):
        path = setting.config(f"workers{workers}", BUSY | {"kv_lossless_async_threads": workers})
        variants.append(Variant(f"{workers} workers", partial(bench, setting, path, 1024)))
    setting.measure(variants)
    yield from compare(
        f"Decode tok/s from KV 1024 on while every layer encodes, {setting.threads} threads",
        variants,
    )
    yield (
        "\n| variant | blocks | encode ms | waited ms | share of encoding during which nobody "
        "waited |"
    )
    yield "| --- | ---: | ---: | ---: | ---: |"
    for variant in variants:
        blocks, busy, waited, share = (
            median(variant.column(f"h2o_lossless_{key}"))
            for key in ("blocks", "comp_us", "async_wait_us", "encode_overlap")
        )
        yield (
            f"| {variant.name} | {blocks:.0f} | {busy / 1e3:.1f} | {waited / 1e3:.2f} | "
            f"{share:.3f} |"
        )


def startup(setting: Setting) -> Iterator[str]:
    """From the start of the process to the first token of its answer to a 512-token prompt."""
    from pytest_h2o.engine.config import load_config  # noqa: PLC0415
    from pytest_h2o.engine.tokenizer import Tokenizer  # noqa: PLC0415

    config = setting.config("demo", {"thread_num": setting.threads})
    loaded = load_config(config)
    tokenizer, words = (
        Tokenizer(loaded.tokenizer, loaded.architecture),
        (SHIPPED / "heldout.txt").read_text().split(),
    )
    count = next(
        n for n in range(200, len(words)) if len(tokenizer.encode(" ".join(words[:n]))) >= 512
    )
    prompt = setting.folder / "prompt.txt"
    prompt.write_text(" ".join(words[:count]))

    def first_token() -> Values:
        command = [
            sys.executable,
            "-m",
            "pytest_h2o.engine.demo",
            config,
            prompt,
            "1",
            "--prompt-file-mode=whole",
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        started = time.perf_counter()
        with subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout
            while not process.stdout.readline().startswith(b"prompt file is"):
                pass
            process.stdout.read(1)
            seconds = time.perf_counter() - started
            process.stdout.read()
        return {"seconds": seconds}

    variant = Variant("start-up", first_token)
    setting.measure([variant])
    seconds = variant.column("seconds")
    yield (
        f"\nStart of the process to first token, prompt of "
        f"{len(tokenizer.encode(prompt.read_text()))} tokens:"
    )
    yield f"median {median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s (target 1 s)"


SECTIONS = {
    "torch": against_torch,
    "compression": compression,
    "codecs": codecs,
    "overlap": overlap,
    "startup": startup,
}


def main() -> None:
    """Print the tables of the sections asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--torch",
        default=sys.executable,
        metavar="PYTHON",
        help="an interpreter that has transformers",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments.rounds, arguments.threads, arguments.torch, Path(folder))
        for name in arguments.sections or SECTIONS:
            for line in SECTIONS[name](setting):
                print(line, flush=True)


if __name__ == "__main__":
    main()
