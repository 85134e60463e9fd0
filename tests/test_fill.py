"""Pages that are filled in: markers as people mistype them, figures by hand, and what depends on which record."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from claim_records import SMALL
from commandline import call
from factory import make_record

from zeta_bench.errors import UsageError
from zeta_bench.records import PUBLISHED_STORE, Record, Store
from zeta_bench.report.fill import Filling, fill_pages
from zeta_bench.report.fill.marks import read_marks
from zeta_bench.report.sources import Source

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / PUBLISHED_STORE
VALUES = {"zeta": (0.9, 0.8, 0.7), "vanilla": (0.97, 0.95, 0.93)}
PATH = "run/mqar/small"
LOCALITY = "analysis/locality/analysis:k=64 length=512 d_k=3"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs of two variants over three seeds."""
    monkeypatch.chdir(tmp_path)
    for variant, values in VALUES.items():
        for seed, value in enumerate(values):
            Store(Path("runs")).write(make_record(variant, seed, value, task="mqar", protocol=SMALL))
    return tmp_path


def filled(text: str) -> str:
    """What a page says after it was filled in, without its markers."""
    Path("page.md").write_text(text, encoding="utf-8")
    said = call("report", "--records", "runs", "--fill", "page.md")
    assert (said.code, said.err) == (0, ""), said.err
    return re.sub(r"<!--.*?-->", "", Path("page.md").read_text(encoding="utf-8"))


def shown(words: str) -> str:
    """What stands in the place of one number."""
    return filled(f"It is <!--n {words}-->old<!--/n-->.").removeprefix("It is ").removesuffix(".")


# What is filled in


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("zeta", "0.8000"),
        ("zeta mean digits=2", "0.80"),
        ("zeta interval", "0.8000 ± 0.1000"),
        ("zeta range", "0.7000 to 0.9000"),
        ("zeta least", "0.7000"),
        ("zeta most form=percent", "90 %"),
        ("zeta seeds", "3"),
        ("zeta seed=1", "0.8000"),
        ("vanilla interval", "0.9500 ± 0.0200"),
        ("vanilla range seed=1", "0.9500"),
        ("zeta over variant=vanilla", "0.842"),
        ("zeta over variant=vanilla form=fewer", "16 %"),
        ("vanilla over variant=zeta form=more digits=1", "18.8 %"),
        ("zeta less variant=vanilla", "-0.1500"),
        ("vanilla less variant=zeta interval", "+0.1500 (-0.0487 to +0.3487)"),
        ("vanilla less variant=zeta p", "0.083"),
        ("performer", "not run"),
        ("performer over variant=zeta", "not run"),
        ("performer seeds", "0"),
        ("zeta:k=16", "not run"),
        ("zeta:k=32", "0.8000"),
    ],
)
def test_a_number_is_that_of_the_records(here: Path, words: str, text: str) -> None:
    assert shown(f"{PATH}/{words}") == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("published/lra.text/LRA-ZETA25/ZETA", "64.52 %"),
        ("published/wikitext/WT-ZETA25/'ZETA (124M)'", "26.3 ppl"),
        ("claim/C1", "not run"),
        ("claim/C1 part=2 status", "inconclusive"),
        ("claim/C5 title", "Long Range Arena"),
        ("claim/C2 statement", r"On MQAR every d\_K ≥ 2 is near perfect and d\_K = 1 slightly worse."),
        ("bench/speed/op:dtype=bf16/zeta mode=both lengths=8k", "not run"),
        (f"{LOCALITY} distribution=uniform measure=overlap", "not run"),
        ("layers/mqar/small/zeta layer=0 measure=recall", "not run"),
        ("run/mqar/matched/zeta backbone.d_model=256", "not run"),
        ("run/mqar/small+backbone.short_conv=0/zeta", "not run"),
    ],
)
def test_other_kinds_of_numbers(here: Path, words: str, text: str) -> None:
    assert shown(words) == text


def test_a_sweep_is_counted_as_it_is_planned(here: Path) -> None:
    assert shown("sweep/c1-width protocol=small") == "18"
    assert shown("sweep/c1-width") == "144"
    assert shown("sweep/c1-width|c2-dk protocol=small") == "42"  # vanilla, zeta and zeta-token are in both


def test_a_table_has_the_rows_and_columns_that_are_named(here: Path) -> None:
    text = filled(f"<!--table {PATH} variant=zeta|vanilla|performer columns=variant|accuracy|runs-->\n<!--/table-->\n")
    assert text.split("\n") == [
        *("", ""),
        "| variant | accuracy ↑ | runs |",
        "| :--- | ---: | :--- |",
        "| vanilla | **0.950 ± 0.020 (3)** | 3 ok |",
        "| zeta | 0.800 ± 0.100 (3) | 3 ok |",
        "| performer | not run | not run |",
        *("", "", ""),
    ]


def test_a_table_without_any_record_says_so(here: Path) -> None:
    assert filled("<!--table run/wikitext/small-->\nold\n<!--/table-->\n").strip() == "not run"


def test_a_name_stands_for_words_and_later_words_go_before(here: Path) -> None:
    page = (
        f"<!--let best = {PATH}/vanilla interval-->\n\nIt has <!--n best mean--><!--/n--> and "
        "<!--n best variant=zeta--><!--/n-->."
    )
    assert filled(page).strip() == "It has 0.9500 and 0.8000 ± 0.1000."


def test_all_else_stays_byte_for_byte(here: Path) -> None:
    text = "\ufeffa\r\n`<!--n nonsense-->` <!-- n -->\r\n~~~\r\n<!--table-->\r\n~~~\r\n"
    text += f"b <!--n {PATH}/zeta-->x<!--/n--> \r\n\r\n"
    Path("page.md").write_bytes(text.encode())
    assert call("report", "--records", "runs", "--fill", "page.md").code == 0
    assert Path("page.md").read_bytes() == text.replace("-->x<!", "-->0.8000<!").encode()
    before = Path("page.md").stat().st_mtime_ns
    said = call("report", "--records", "runs", "--fill", "page.md", "--fill", "./page.md")
    assert "page.md: 1 number filled in, none changed" in said.out
    assert Path("page.md").stat().st_mtime_ns == before


def test_what_is_missing_is_told_with_place_and_command(here: Path) -> None:
    Path("runs/run").joinpath("mqar", SMALL, "zeta").glob("*.json").__next__().unlink()
    text = f"a <!--n {PATH}/zeta--><!--/n-->\nb <!--n {PATH}/performer--><!--/n-->\n"
    Path("page.md").write_text(text, encoding="utf-8")
    said = call("report", "--records", "runs", "--fill", "page.md")
    assert "zeta-bench run mqar --attn zeta --protocol small --seeds 3 --records runs\n" in said.out
    assert "page.md:1: run/mqar/small/zeta: 2 of 3 seeds" in said.out
    assert "zeta-bench run mqar --attn performer --protocol small --seeds 3 --records runs\n" in said.out
    assert "page.md:2: run/mqar/small/performer: no record" in said.out


# What is refused


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("<!--n run/mqar/small/zeeta--><!--/n-->", "unknown variant 'zeeta': did you mean zeta"),
        ("<!--n run/mqr/small/zeta--><!--/n-->", "unknown task 'mqr': did you mean mqar?"),
        ("<!--n run/mqar/smal/zeta--><!--/n-->", "unknown protocol 'smal': did you mean small?"),
        ("<!--n run/lra/small/zeta--><!--/n-->", "'lra' is a family of tasks; name one of lra."),
        ("<!--n run/mqar/small/zeta:kk=3--><!--/n-->", "variant 'zeta': there is no setting 'kk'"),
        ("<!--n run/mqar/small+backbone.shrt_conv=0/zeta--><!--/n-->", "did you mean 'backbone.short_conv'?"),
        ("<!--n run/mqar/matched/zeta--><!--/n-->", "mqar matched has a grid; say which point: backbone.d_model=32."),
        ("<!--n run/mqar/small/zeta optim.lr=1--><!--/n-->", "optim.lr is no key of the grid of mqar small"),
        ("<!--n run/mqar/small/zeta metric=acuracy--><!--/n-->", "there is no metric 'acuracy'; did you mean"),
        ("<!--n run/mqar/small/zeta slice=a/b--><!--/n-->", "there is no slice 'a/b': there is none."),
        ("<!--n run/mqar/small/zeta seeed=1--><!--/n-->", "there is no setting 'seeed'; did you mean 'seed'?"),
        ("<!--n run/mqar/small/zeta avg--><!--/n-->", "'avg' cannot be shown of a run: there is mean, interval"),
        ("<!--n run/mqar/small/zeta p--><!--/n-->", "'p' needs a second figure"),
        ("<!--n run/mqar/small/zeta over--><!--/n-->", "'over' needs what to compare with"),
        ("<!--n run/mqar/small/zeta over variant=vanilla less seed=1--><!--/n-->", "'over' stands there already"),
        ("<!--n run/mqar/small/zeta over variant=vanilla interval--><!--/n-->", "cannot be shown with 'over'"),
        ("<!--n run/mqar/small/zeta seed=1 seed=2--><!--/n-->", "'seed=2' is given twice."),
        ("<!--n run/mqar/small/zeta digits=--><!--/n-->", "'digits=' is not whole; write key=value."),
        (
            "<!--n run/mqar/small/zeta digits=99--><!--/n-->",
            "setting 'digits' = 99 is not valid: it must be",
        ),
        ("<!--n run/mqar/small/zeta device=TPU--><!--/n-->", "it was not measured on 'TPU', but on"),
        ("<!--n run/mqar/small/zeta/more--><!--/n-->", "has too many parts: it is run/TASK/PROTOCOL/VARIANT."),
        ("<!--n run/mqar/small--><!--/n-->", "setting 'variant' is missing; add it."),
        ("<!--n runs/mqar/small/zeta--><!--/n-->", "a number's path begins with run · bench"),
        ("<!--n zeta--><!--/n-->", "'zeta' is neither a path such as run/mqar/small/zeta nor a name."),
        ("<!--n--><!--/n-->", "this marker names nothing"),
        ("<!--n 'run--><!--/n-->", "has an open quotation mark"),
        ("<!--n bench/sped/op:/zeta mode=both lengths=8k--><!--/n-->", "setting 'task' = 'sped' is not valid"),
        ("<!--n bench/speed/op:dtype=bf17/zeta mode=both lengths=8k--><!--/n-->", "setting 'dtype' = 'bf17' is not"),
        ("<!--n bench/speed/op:dtype=bf16/zetta mode=both lengths=8k--><!--/n-->", "unknown variant 'zetta'"),
        ("<!--n bench/speed/op:dtype=bf16/zeta mode=both lengths=8x--><!--/n-->", "--length 8x is no length"),
        (
            "<!--n analysis/locality/analysis:k=64 distribution=x length=5 d_k=1 measure=overlap--><!--/n-->",
            "no points",
        ),
        (
            "<!--n analysis/locality/analysis:k=64 distribution=uniform length=5 d_k=1 measure=o--><!--/n-->",
            "measure 'o'",
        ),
        ("<!--n claim/C99--><!--/n-->", "there is no claim C99; there is C1, "),
        ("<!--n claim/C1 part=9--><!--/n-->", "claim C1 has 3 parts; there is no part 9."),
        ("<!--n claim/C1 measured--><!--/n-->", "'measured' is of one part of C1: add part=1."),
        ("<!--n published/lra.text/LRA-ZETA25/ZETTA--><!--/n-->", "did you mean lra.text/LRA-ZETA25/ZETA or"),
        ("<!--n sweep/c1-widht--><!--/n-->", "unknown sweep 'c1-widht': did you mean c1-width"),
        ("<!--n run/mqar/small/zeta-->0.8", "is not followed by <!--/n-->"),
        ("<!--n run/mqar/small/zeta-->0.8<!--/table-->", "is not followed by <!--/n-->"),
        ("0.8<!--/n-->", "<!--/n--> closes nothing"),
        ("<!--n run/mqar/small/zeta 0.8", "this marker is not closed; end it with -->."),
        ("<!--n run/mqar/small/zeta 0.8<!--/n-->", "this marker is not closed; end it with -->."),
        ("<!--table run/mqar/small-->x<!--/table-->", "must have a line of its own"),
        ("\n<!--n run/mqar/small/zeta--><!--/n-->", "a number's marker begins its line"),
        ("\n| a | <!--n sweep/c1-width|c2-dk--><!--/n--> |", "would cut the row of its table; name its words"),
        ("\n<!--table mqar-small-->\n<!--/table-->", "'mqar-small' is neither a path"),
        ("\n<!--table run/mqar-->\n<!--/table-->", "'run/mqar' is no table: write run/TASK/PROTOCOL"),
        ("\n<!--table run/mqar/small view=layer-->\n<!--/table-->", "there is no view 'layer'"),
        ("\n<!--table run/mqar/small columns=variant|acc-->\n<!--/table-->", "there is no column 'acc'"),
        ("\n<!--table run/mqar/small what=both-->\n<!--/table-->", "there is no column 'what'"),
        (
            "\n<!--table run/mqar/small mean-->\n<!--/table-->",
            "a table has key=value and the word 'presets'",
        ),
        ("\n<!--table bench/speeed/op:-->\n<!--/table-->", "there is no bench 'speeed'; there is speed and memory."),
        ("\n<!--table claims claim=C99-->\n<!--/table-->", "there is no such row: C99."),
        ("\n<!--let a-->\n", "a let is written <!--let NAME = WORDS-->"),
        ("\n<!--let claim = run/mqar/small/zeta-->\n", "the name 'claim' is taken"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(here: Path, marker: str, says: str) -> None:
    good, bad = f"one <!--n {PATH}/zeta-->old<!--/n-->\n", f"first line\n\nsecond {marker}"
    Path("good.md").write_text(good, encoding="utf-8")
    Path("bad.md").write_text(bad, encoding="utf-8")
    sentence = call("report", "--records", "runs", "--fill", "good.md", "--fill", "bad.md").sentence()
    assert re.match(rf"bad\.md:{4 if marker.startswith(chr(10)) else 3}: ", sentence), sentence
    assert says in sentence
    assert (Path("good.md").read_text(encoding="utf-8"), Path("bad.md").read_text(encoding="utf-8")) == (good, bad)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--fill", "none.md"],
            "cannot read the page none.md: No such file or directory; --fill takes a",
        ),
        (["--fill", "runs"], "cannot read the page runs: it is a folder"),
        (["--fill", "page.md", "--task", "mqar"], "--fill goes with --records alone"),
        (["--fill", "page.md", "--format", "md"], "--fill goes with --records alone"),
        (["--fill", "page.md", "--to", "there"], "--fill goes with --records alone"),
        (["--fill", "latin.md"], "latin.md is not UTF-8"),
    ],
)
def test_options_that_make_no_sense(here: Path, words: list[str], says: str) -> None:
    Path("page.md").write_text("text\n", encoding="utf-8")
    Path("latin.md").write_bytes("é".encode("latin-1"))
    assert says in call("report", *words).sentence()
    assert not Path("runs/report").exists()


def test_control_characters_of_a_marker_reach_no_terminal(here: Path) -> None:
    Path("page.md").write_text("a <!--n \x1b[31mred/a--><!--/n-->", encoding="utf-8")
    assert "\x1b" not in call("report", "--records", "runs", "--fill", "page.md").sentence()


def test_a_folder_with_a_space_stays_one_word_of_the_command(here: Path) -> None:
    Path("runs").rename("my runs")
    Path("page.md").write_text(f"a <!--n {PATH}/performer--><!--/n-->", encoding="utf-8")
    assert "--records 'my runs'\n" in call("report", "--records", "my runs", "--fill", "page.md").out


def test_two_devices_must_be_told_apart(here: Path) -> None:
    other = make_record("zeta", 0, 0.5, task="mqar", protocol=SMALL, device="Other", device_class="Other")
    Store(Path("runs")).write(other.model_copy(update={"run_id": "0" * 16}))
    Path("page.md").write_text(f"a <!--n {PATH}/zeta--><!--/n-->", encoding="utf-8")
    assert "; say which: device='" in call("report", "--records", "runs", "--fill", "page.md").sentence()
    assert shown(f"{PATH}/zeta device=Other") == "0.5000"


def test_text_of_records_cannot_leave_its_marker(here: Path) -> None:
    """A table's text is foreign: it must neither close the marker nor open another."""
    evil = make_record(
        "zeta", 0, 0.5, task="mqar", protocol=SMALL, settings={"k": "<!--/table-->\n# x"}, config={"k": 1}
    )
    Store(Path("runs")).write(evil.model_copy(update={"run_id": "1" * 16}))
    page = f"<!--table {PATH}-->\n<!--/table-->\nend\n"
    Path("page.md").write_text(page, encoding="utf-8")
    assert call("report", "--records", "runs", "--fill", "page.md").code == 0
    text = Path("page.md").read_text(encoding="utf-8")
    assert [mark.kind for mark in read_marks(text, "page.md")] == ["table"]
    assert text.count("<!--") == 2
    assert "\n# x" not in text


def test_code_may_show_markers() -> None:
    text = "```\n<!--n a--><!--/n-->\n```\n`<!--n b-->` and ``<!--/n-->``\n\n    ~~~\n<!--table c-->\n    ~~~\n"
    assert read_marks(text, "page.md") == []
    with pytest.raises(UsageError, match=r"page\.md:9: "):
        read_marks(f"{text}x <!--n d-->", "page.md")


# Which number depends on which record

PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "results/README.md", *sorted((ROOT / "docs").glob("*.md")))
    if read_marks(path.read_text(encoding="utf-8"), path.name)
]


def fill_copies(folder: Path, without: str = "") -> Filling:
    """The project's pages filled in, in a folder of their own, from its records but one."""
    store = folder / PUBLISHED_STORE
    shutil.copytree(RECORDS, store, copy_function=os.link)
    if without:
        (store / without).unlink()
    pages = [path.relative_to(ROOT) for path in PAGES]
    for path, copy in zip(PAGES, pages, strict=True):
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / copy)
    with chdir(folder):
        return fill_pages({str(PUBLISHED_STORE): PUBLISHED_STORE}, pages)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Filling:
    return fill_copies(tmp_path_factory.mktemp("whole"))


def find_record(kind: str, task: str, variant: str, *, seed: int = 0, **about: object) -> str:
    """The file of the one committed record of that kind whose protocol, settings or point are as told."""

    def fits(record: Record) -> bool:
        told = {**record.point, "settings": record.settings, "protocol": record.protocol}
        same = (record.task, record.variant, record.seed) == (task, variant, seed)
        return same and all(told[key] == value for key, value in about.items())

    found = [path for path, record in Store(RECORDS).files(kind) if fits(record)]
    assert len(found) == 1, found
    return str(found[0].relative_to(RECORDS))


OP, AS_PUBLISHED = "bench-op-causal-bf16@cce481bf", "bench-op-causal-bf16@c601b7ec"
SAMPLE = {
    "a run of three": ("run", "mqar", "zeta", {"seed": 1, "settings": {}}),
    "the only run of a setting": ("run", "mqar", "zeta", {"settings": {"d_k": 1}}),
    "a run that others are compared with": ("run", "mqar", "zeta-token", {"seed": 2}),
    "the analysis of a run": ("analysis", "mqar", "zeta-token", {"seed": 2}),
    "a time": ("bench", "speed", "zeta", {"protocol": OP, "length": 65536, "graph": True}),
    "a time without a graph": ("bench", "speed", "sdpa-cudnn", {"protocol": OP, "length": 16384, "graph": False}),
    "a time that decides": ("bench", "speed", "sdpa-flash", {"protocol": AS_PUBLISHED, "length": 8192, "graph": True}),
    "a memory": ("bench", "memory", "sdpa-flash", {"protocol": OP, "length": 8192}),
    "an analysis": (
        *("analysis", "locality", "zorder"),
        {"seed": 3, "protocol": "analysis-top64@be5fc4ca", "distribution": "uniform", "length": 512},
    ),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_deleted_record_changes_what_depends_on_it_and_nothing_else(
    name: str, whole: Filling, tmp_path: Path
) -> None:
    kind, task, variant, about = SAMPLE[name]
    path = find_record(kind, task, variant, **about)
    source = Source(str(PUBLISHED_STORE), kind, Path(path).stem)
    now = fill_copies(tmp_path, path)
    before = [each for page in whole.pages for each in page.filled]
    after = [each for page in now.pages for each in page.filled]
    depend = [number for number, each in enumerate(before) if source in each.result.sources]
    assert depend, "no page shows anything of this record"
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new.changed == (old.result.text != new.result.text)  # the copies were up to date
        if number not in depend:
            assert old.result == new.result, old.mark.words
        elif not old.mark.words.startswith("claim"):  # a verdict may stand without one of its records
            assert (old.result.text, old.result.lacks) != (new.result.text, new.result.lacks), old.mark.words
            assert source not in new.result.sources
    assert any(new.changed for new in after)
    for one, other in zip(whole.pages, now.pages, strict=True):
        assert prose(one.text) == prose(other.text)
    told = {command: wanted for command, wanted in now.missing.items() if wanted != whole.missing.get(command)}
    assert told, "the command does not say what is missing"
    assert all(command.startswith("zeta-bench ") for command in told)


def prose(text: str) -> str:
    """A page without what is filled in."""
    for mark in reversed(read_marks(text, "page")):
        text = text[: mark.start] + text[mark.end :]
    return text


def test_the_command_says_what_a_deleted_record_leaves_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_record("run", "mqar", "zeta", settings={"d_k": 1})
    fill_copies(tmp_path)
    (tmp_path / PUBLISHED_STORE / path).unlink()
    monkeypatch.chdir(tmp_path)
    said = call("report", "--records", str(PUBLISHED_STORE), "--fill", "docs/findings.md")
    assert said.code == 0
    assert "docs/findings.md: " in said.out
    assert ", 3 changed" in said.out  # the number, and the status of C2 in two places
    command = "zeta-bench run mqar --attn zeta:d_k=1 --protocol small --seed 0 --records results/records"
    assert f"  {command}\n" in said.out
    text = (tmp_path / "docs/findings.md").read_text(encoding="utf-8")
    assert "<!--n mqar variant=zeta:d_k=1 seed=0-->not run<!--/n-->" in text
