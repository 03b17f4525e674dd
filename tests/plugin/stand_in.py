"""Programs that stand in for ``llm_bench`` and ``llm_demo``: they take the same arguments and print
recorded output.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "data" / "runs" / "bench_full" / "logs" / "run_0001_p512_g128.log"
MODEL_FILES = (
    "llm.mnn",
    "llm.mnn.weight",
    "llm_config.json",
    "tokenizer.txt",
    "embeddings_bf16.bin",
)
SUMMARY = """
#################################
prompt tokens num = 100
decode tokens num = {gen}
prefill time = 0.10 s
 decode time = 1.00 s
 sample time = 0.01 s
prefill speed = 1000.00 tok/s
 decode speed = {gen}.00 tok/s
##################################
"""
RECORD = {
    "prompt_index": 0, "prompt_tokens": 100, "prefill_us": 100000, "decode_us": 1000000,
    "sample_us": 10000, "h2o_keep_ratio": 0.3, "h2o_lossy_ratio": 3.1, "h2o_lossless_ratio": 1.4,
    "h2o_lossless_raw_bytes": 400000, "h2o_lossless_compressed_bytes": 300000,
    "h2o_lossless_decompressed_bytes": 400000, "h2o_lossless_compress_us": 900,
    "h2o_lossless_decompress_us": 400, "h2o_lossless_queue_depth_peak": 1,
    "h2o_lossless_fallback_count": 0, "h2o_lossless_backpressure_skip": 0,
    "h2o_lossless_async_queue_peak": 1, "h2o_lossless_async_wait_us": 0,
    "h2o_lossless_decode_cache_hit": 2, "h2o_lossless_decode_cache_miss": 1,
    "h2o_last_evict_tokens": 32, "h2o_total_evict_tokens": 320,
}  # fmt: skip
KV_DUMP = ROOT / "tests" / "data" / "offline" / "kv_dump.tar.gz"
# Leaves a recorded KV dump where it is asked for one.
DUMPS = f"""
import tarfile
if (folder := os.environ.get("MNN_KV_DUMP_DIR", "0")) != "0":
    with tarfile.open({str(KV_DUMP)!r}) as dump:
        dump.extractall(folder, filter="data")
"""
# Notes when it ran in launches.txt beside itself: start and end in ns, directory, arguments.
PROGRAM = """#!{python} -IS
import json, os, pathlib, sys, time
here, started = pathlib.Path(__file__).parent, time.monotonic_ns()
{body}
if sys.argv[0].endswith("llm_bench"):
    argv = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    lengths = f"prompt={{argv['-p']}}<br>decode={{argv['-n']}}"
    table = pathlib.Path({table!r}).read_text("utf-8").replace("prompt=512<br>decode=128", lengths)
    pathlib.Path(argv["-fp"]).open("a", encoding="utf-8").write(table)
else:
    record = {record!r} | {{"decode_tokens": int(sys.argv[3])}}
    pathlib.Path(sys.argv[5]).open("a").write(json.dumps(record) + chr(10))
    print({summary!r}.format(gen=sys.argv[3]))
with (here / "launches.txt").open("a") as file:
    file.write(json.dumps([started, time.monotonic_ns(), os.getcwd(), sys.argv[1:]]) + chr(10))
"""


def install(folder: Path, body: str = "") -> list[str]:
    """Write both programs and a model into ``folder``; the options that select them. ``body`` runs
    first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = PROGRAM.format(
        python=sys.executable, body=body, table=str(TABLE), record=RECORD, summary=SUMMARY
    )
    for name in ("llm_bench", "llm_demo"):
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
    for name in MODEL_FILES:
        folder.joinpath(name).write_text("{}")
    folder.joinpath("config.json").write_text(
        json.dumps({"llm_model": "llm.mnn", "thread_num": 3, "kv_h2o_log": 1})
    )
    options = {
        "--llm-bench": "llm_bench",
        "--llm-demo": "llm_demo",
        "--model-config": "config.json",
    }
    return [word for option, name in options.items() for word in (option, str(folder / name))]


def launches(folder: Path) -> list[tuple[int, int, str, list[str]]]:
    """When, where and with which arguments the programs of ``folder`` ran, in the order of their
    end.
    """
    path = folder / "launches.txt"
    return (
        [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    )


def overlaps(folder: Path) -> int:
    """How many launches began before the one before them had ended."""
    times = sorted(launch[:2] for launch in launches(folder))
    return sum(later[0] < earlier[1] for earlier, later in pairwise(times))
