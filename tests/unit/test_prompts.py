"""Prompts: buckets, manifests, sampling, and the texts that ship with the project."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.prompts import (
    Prompt,
    PromptSelection,
    bucket_of,
    bucket_order,
    natural_key,
    sample,
    select_prompts,
)

SHIPPED = Path(__file__).parents[2] / "prompts"


def make(folder: Path, *names: str, text: str = "text") -> Path:
    """A directory with prompt files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(text)
    return folder


def select(folder: Path, *knobs: str) -> PromptSelection:
    """The selection with these knobs."""
    return select_prompts(folder, resolve(knobs))


def stems(selection: PromptSelection) -> list[str]:
    """The selected names."""
    return [prompt.stem for prompt in selection.prompts]


@pytest.mark.parametrize(
    ("name", "bucket"),
    [
        ("prompt_128_1.txt", "128"),
        ("PROMPT_2048_10.TXT", "2048"),
        ("long_prompt_512_3.txt", "512"),
        ("prompt_128.txt", "other"),
        ("prompt_128_1.txt.bak", "other"),
        ("prompt_a_1.txt", "other"),
        ("notes.txt", "other"),
    ],
)
def test_buckets_come_from_the_end_of_the_name(name: str, bucket: str) -> None:
    """Prefixes and case do not matter; anything else is one bucket of its own."""
    assert bucket_of(name) == bucket


def test_natural_order() -> None:
    """Numbers inside names are compared as numbers."""
    names = ["prompt_2048_1", "prompt_128_10", "prompt_128_2", "a", "prompt_512_1"]
    assert sorted(names, key=natural_key) == [
        "a",
        "prompt_128_2",
        "prompt_128_10",
        "prompt_512_1",
        "prompt_2048_1",
    ]


@given(st.lists(st.text(max_size=20)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    """Names with digits, without, or empty, all compare."""
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


def test_the_bucket_list_orders_and_does_not_filter() -> None:
    """Listed buckets come first as listed, then numbers, then names; what does not occur is left
    out.
    """
    assert bucket_order(["other", "64", "2048", "128", "512"], ["512", "128", "4096"]) == [
        "512",
        "128",
        "64",
        "2048",
        "other",
    ]
    assert bucket_order([], ["128"]) == []


def prompts_of(*names: str) -> list[Prompt]:
    """Prompts without files."""
    return [Prompt(Path(f"{name}.txt"), name.split("_")[0], name) for name in names]


SIX = prompts_of("128_1", "128_2", "128_3", "512_1", "512_2", "2048_1")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "128_1 512_1 2048_1 128_2 512_2 128_3"),
        ({"total": 4}, "128_1 512_1 2048_1 128_2"),
        ({"per_bucket": 1}, "128_1 512_1 2048_1"),
        ({"per_bucket": 2, "total": 4, "bucket_list": ["2048", "512"]}, "2048_1 512_1 128_1 512_2"),
        ({"stratified": False}, "128_1 128_2 128_3 512_1 512_2 2048_1"),
        ({"stratified": False, "per_bucket": 2, "total": 3}, "128_1 128_2 512_1"),
        ({"stratified": False, "bucket_list": ["2048"]}, "2048_1 128_1 128_2 128_3 512_1 512_2"),
    ],
)
def test_sampling(options: dict[str, object], expected: str) -> None:
    """Round robin or bucket after bucket, cut by the two limits."""
    assert " ".join(prompt.stem for prompt in sample(SIX, **options)) == expected  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from(SIX), unique=True), st.integers(0, 4), st.integers(0, 7), st.booleans()
)
def test_sampling_keeps_order_and_limits(
    prompts: list[Prompt], per_bucket: int, total: int, stratified: bool
) -> None:
    """Each bucket gives its first prompts in order, and no limit is exceeded or left unused."""
    chosen = sample(prompts, per_bucket=per_bucket, total=total, stratified=stratified)
    groups = {
        bucket: [p for p in prompts if p.bucket == bucket][: per_bucket or None]
        for bucket in {p.bucket for p in prompts}
    }
    available = sum(map(len, groups.values()))
    assert len(chosen) == (min(total, available) if total else available)
    for bucket, group in groups.items():
        taken = [prompt for prompt in chosen if prompt.bucket == bucket]
        assert taken == group[: len(taken)]


def test_discovery_is_by_pattern_and_in_natural_order(tmp_path: Path) -> None:
    """Only matching files of the directory itself are found."""
    make(tmp_path, "prompt_128_10.txt", "prompt_128_2.txt", "prompt_2048_1.txt", "notes.txt")
    make(tmp_path / "below", "prompt_128_1.txt")
    assert stems(select(tmp_path)) == ["prompt_128_2", "prompt_2048_1", "prompt_128_10"]
    assert stems(select(tmp_path, "PROMPT_PATTERN=prompt_???_*.txt")) == [
        "prompt_128_2",
        "prompt_128_10",
    ]


def test_unusable_prompts_are_said(tmp_path: Path) -> None:
    """What the program would ignore is left out with its reason, and the rest is kept."""
    make(tmp_path, "prompt_128_1.txt", text="# heading first")
    make(tmp_path, "prompt_128_2.txt", text="")
    make(tmp_path, "prompt_128_3.txt", text="\r\n \n" * 20_000)
    make(tmp_path, "prompt_128_4.txt", text="\n# second line")
    (tmp_path / "prompt_128_5.txt").mkdir()
    os.mkfifo(tmp_path / "prompt_128_6.txt")
    selection = select(tmp_path)
    assert stems(selection) == ["prompt_128_4"]
    assert [(Path(problem.entry).name, problem.reason) for problem in selection.problems] == [
        ("prompt_128_1.txt", "begins with '#', the program ignores such a prompt"),
        ("prompt_128_2.txt", "is empty"),
        ("prompt_128_3.txt", "is empty"),
        ("prompt_128_5.txt", "cannot be read: Is a directory"),
        ("prompt_128_6.txt", "is no regular file"),
        *(
            (
                f"bucket {size}",
                "PROMPT_BUCKET_LIST names it, and no prompt is in it; add some, or set "
                "PROMPT_BUCKET_LIST=128",
            )
            for size in (512, 2048)
        ),
    ]
    assert "prompt_128_2.txt: is empty; " in selection.describe_problems()


def test_blank_text_before_words_is_no_empty_prompt(tmp_path: Path) -> None:
    """Any word anywhere makes a prompt."""
    make(tmp_path, "prompt_128_1.txt", text="\n" * 50_000 + "word")
    assert stems(select(tmp_path)) == ["prompt_128_1"]


def test_nothing_found_is_said(tmp_path: Path) -> None:
    """An absent directory and one without prompts are problems, not errors."""
    absent = tmp_path / "absent"
    expected = f"{absent}: cannot be read: No such file or directory; set the prompt directory"
    assert select(absent).describe_problems() == expected
    assert (
        select(tmp_path).describe_problems()
        == f"{tmp_path}: holds no file that matches prompt_*.txt"
    )


@pytest.mark.parametrize("key", ["prompt_file", "prompt_path", "file", "path", "filename", "name"])
def test_manifest_keys(tmp_path: Path, key: str) -> None:
    """Each of the known keys names the file."""
    make(tmp_path, "a.txt")
    (tmp_path / "m.jsonl").write_text(json.dumps({"target_tokens": 5, key: "a.txt"}) + "\n")
    assert stems(select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/m.jsonl")) == ["a"]


def test_a_manifest_keeps_its_order_and_looks_beside_itself_first(tmp_path: Path) -> None:
    """Entries are taken as listed; paths may be relative to the manifest or the prompt directory,
    or absolute.
    """
    lists, folder = (
        make(tmp_path / "lists", "b.txt", "z.txt"),
        make(tmp_path / "prompts", "a.txt", "b.txt"),
    )
    manifest = lists / "prompts.txt"
    manifest.write_text(f"z.txt\n\n  a.txt \r\nb.txt\n{folder / 'b.txt'}\nc.txt\n./z.txt\n")
    selection = select(folder, f"PROMPT_MANIFEST={manifest}")
    assert [prompt.path for prompt in selection.prompts] == [
        lists / "z.txt",
        folder / "a.txt",
        lists / "b.txt",
    ]
    assert [problem.reason for problem in selection.problems] == [
        f"no such file in {lists} or {folder}",
        f"has the same name as {lists / 'b.txt'}, by which its results are told apart; rename one",
        f"listed twice, first as {lists / 'z.txt'}",
    ]


def test_a_pattern_filters_a_manifest_only_when_given(tmp_path: Path) -> None:
    """The default pattern does not drop listed files; the user's does, and says so."""
    make(tmp_path, "a.txt", "prompt_128_1.txt")
    (tmp_path / "m").write_text("a.txt\nprompt_128_1.txt\n")
    assert stems(select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/m")) == ["prompt_128_1", "a"]
    selection = select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/m", "PROMPT_PATTERN=prompt_*.txt")
    assert stems(selection) == ["prompt_128_1"]
    assert selection.describe_problems() == "a.txt: does not match PROMPT_PATTERN=prompt_*.txt"


def test_records_ended_by_a_backslash_and_an_n_are_read(tmp_path: Path) -> None:
    """A manifest that is one line of several records names them all."""
    make(tmp_path, "a.txt", "b.txt")
    (tmp_path / "m").write_text('{"file": "a.txt"}\\n{"file": "b.txt"}\\n')
    assert stems(select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/m")) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{broken", "m:1: begins with '{' but is not a JSON object"),
        (
            '{"other": "a.txt"}',
            "m:1: has none of the keys prompt_file, prompt_path, file, path, filename, name",
        ),
        ('{"file": 5}', "m:1: file is 5; expected text"),
        ('{"x": 1, "name": " "}', "m:1: name is ' '; expected text"),
        ('{"a":' * 3000, "m:1: begins with '{' but is not a JSON object"),
        ("a" * 5000, "a" * 5000 + ": no such file in"),
        ("a\x00b", "a\x00b: no such file in"),
        ("x" * 20_000, "m:1: longer than 16384 characters; not read on"),
    ],
)
def test_broken_manifests_are_said(tmp_path: Path, text: str, problem: str) -> None:
    """A manifest is untrusted: every line gives a file or a problem."""
    (tmp_path / "m").write_text(text)
    selection = select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/m")
    assert selection.prompts == ()
    assert selection.describe_problems().removeprefix(f"{tmp_path}/").startswith(problem)


def test_a_missing_manifest_is_said(tmp_path: Path) -> None:
    """The directory's prompts do not stand in for it."""
    make(tmp_path, "prompt_128_1.txt")
    selection = select(tmp_path, f"PROMPT_MANIFEST={tmp_path}/absent")
    assert selection.prompts == ()
    assert (
        selection.describe_problems()
        == f"{tmp_path}/absent: cannot be read: No such file or directory"
    )


@given(st.binary(max_size=200))
def test_random_manifests_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """Any bytes give a selection."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "manifest").write_bytes(data)
    selection = select(folder, f"PROMPT_MANIFEST={folder}/manifest")
    assert isinstance(selection, PromptSelection)


def test_the_shipped_prompts_are_all_usable() -> None:
    """Every text can be run, at least four per bucket, in the order of the default buckets."""
    selection = select(SHIPPED)
    assert selection.problems == ()
    assert [prompt.bucket for prompt in selection.prompts[:3]] == ["128", "512", "2048"]
    for bucket in ("128", "512", "2048"):
        assert sum(prompt.bucket == bucket for prompt in selection.prompts) >= 4


def test_the_shipped_manifest_agrees_with_the_texts() -> None:
    """Each text is listed once with its length, near its bucket's size, and each kind occurs in
    each bucket.
    """
    records = [
        json.loads(line) for line in (SHIPPED / "prompts_manifest.jsonl").read_text().splitlines()
    ]
    texts = {path.name: path.read_text().rstrip("\r\n") for path in SHIPPED.glob("prompt_*.txt")}
    assert {record["file"]: record["chars"] for record in records} == {
        name: len(text) for name, text in texts.items()
    }
    assert len(set(texts.values())) == len(records) == len(texts)
    kinds: dict[int, set[str]] = {}
    for record in records:
        assert str(record["target_tokens"]) == bucket_of(record["file"])
        assert abs(record["actual_tokens"] / record["target_tokens"] - 1) <= 0.05
        kinds.setdefault(record["target_tokens"], set()).add(record["kind"])
    assert all(found == kinds[128] for found in kinds.values())
    assert len(kinds[128]) == 6
    assert stems(select(SHIPPED, f"PROMPT_MANIFEST={SHIPPED}/prompts_manifest.jsonl")) == stems(
        select(SHIPPED)
    )
