"""``zeta-bench draw``: the pictures of a checkpoint, and the numbers in them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import call
from PIL import Image
from toys import FindMark, FirstToken, Toy, session_in, toy_run, train

from zeta_bench.attention import AttentionSpec, build
from zeta_bench.diagnostics import diagnose
from zeta_bench.gallery.curve import View
from zeta_bench.gallery.layers import distance_bins, ratios
from zeta_bench.gallery.measure import measure
from zeta_bench.gallery.passage import held_out, pieces
from zeta_bench.gallery.pictures import draw_all, sit
from zeta_bench.gallery.seen import inputs_of, look
from zeta_bench.gallery.source import open_source
from zeta_bench.gallery.weights import weights_of
from zeta_bench.gallery.writing import lay_out
from zeta_bench.registry import Task, catalogue, find_variant
from zeta_bench.run import make_model
from zeta_bench.task import Batch, Shape
from zeta_bench.training import BenchModule

ALPHABET = "abc$\\_\n e"
LENGTH, K = 40, 4


class Letters(Toy):
    """A text over nine characters, some of which mean something to whoever draws them: what was two places before."""

    def shape(self) -> Shape:
        return Shape("lm", outputs=len(ALPHABET), max_len=LENGTH, vocab_size=len(ALPHABET))

    def draw(self, n: int, seed: int) -> Batch:
        tokens = torch.randint(0, len(ALPHABET), (n, LENGTH), generator=torch.Generator().manual_seed(seed))
        return {"inputs": tokens, "labels": tokens.roll(2, 1)}

    def encode(self, text: str) -> list[int]:
        return [ALPHABET.index(letter) for letter in text if letter in ALPHABET]

    def decode(self, ids: Any) -> str:
        return "".join(ALPHABET[id] for id in ids)


TASKS: dict[type[Toy], str] = {Letters: "test_gallery", FirstToken: "toys", FindMark: "toys"}


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for toy, module in TASKS.items():
        monkeypatch.setitem(catalogue().tasks, toy.__name__, Task(f"{module}:{toy.__name__}", "a toy"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which some models have been trained: runs/, checkpoints/."""
    return tmp_path_factory.mktemp("kept")


def checkpoint(kept: Path, attn: str = f"zeta-token:k={K}", toy: type[Toy] = Letters) -> Path:
    """Of a variant on a toy; trained when it is first asked for."""
    backbone = {"d_model": 16, "n_layers": 2, "n_heads": 2, "positions": "learned"}
    direction = "bidirectional" if toy is FindMark else "causal"
    budget = {"steps": 20, "batch_size": 32, "eval_every": 20}
    run = toy_run(toy, attn, seed=3, direction=direction, budget=budget, backbone=backbone)
    path = session_in(kept).checkpoint(run)
    if not path.exists():
        train(run, kept, keep=True)
    return path


def draw(kept: Path, to: Path, path: Path, *words: str) -> Any:
    return call("draw", str(path), "--records", str(kept / "runs"), "--to", str(to), *words)


def test_every_picture_of_a_checkpoint_is_drawn(kept: Path, tmp_path: Path) -> None:
    path, other = checkpoint(kept), checkpoint(kept, "vanilla")
    done = draw(kept, tmp_path / "new", path, "--beside", str(other))
    assert (done.code, done.err) == (0, "")
    names = [f"Letters-zeta-token-{path.stem[:8]}-{what}.png" for what in ("curve", "text", "recall", "distance")]
    assert done.out.split() == [str(tmp_path / "new" / name) for name in names]
    for name in names:
        picture = Image.open(tmp_path / "new" / name).convert("RGB")
        assert min(picture.size) > 200
        assert len(picture.getcolors(maxcolors=2**24) or ()) > 20, "nothing is drawn"


def test_captions_say_where_the_numbers_come_from(kept: Path) -> None:
    path = checkpoint(kept)
    source = open_source(path, kept / "runs")
    assert source.record is not None
    for drawing in draw_all(sit(source, held_out(source), None, 0, None), None):
        told = " ".join(drawing.told)
        for word in ("Letters", source.protocol.id, f"zeta-token:k={K}", "seed 3", "20 steps", path.stem, "commit"):
            assert word in told
    assert "named by --records" in call("draw", str(path), "--to", str(kept / "lost")).err
    lost = open_source(path, kept / "nowhere")
    assert "without its record: seed and commit unknown" in lost.captions[0]
    assert "fresh weights" in lost.untrained_told


def test_a_record_of_another_run_is_not_told_of(kept: Path, tmp_path: Path) -> None:
    renamed = tmp_path / checkpoint(kept, "vanilla").name
    renamed.write_bytes(checkpoint(kept).read_bytes())
    assert open_source(renamed, kept / "runs").record is None


def test_the_untrained_model_is_that_of_step_0(kept: Path) -> None:
    source = open_source(checkpoint(kept), kept / "runs")
    attn = f"zeta-token:k={K}"
    run = toy_run(Letters, attn, seed=3, direction="causal", backbone=source.protocol.backbone.model_dump())
    first, now = make_model(run).state_dict(), source.untrained.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in first.items())
    assert not all(torch.equal(value, now[name]) for name, value in source.model.state_dict().items())


def test_neighbours_add_up_and_recall_is_that_of_diagnose(kept: Path) -> None:
    source = open_source(checkpoint(kept), kept / "runs")
    examples = source.task.examples("test")
    layers, count = measure(source.model, examples, source.label)
    module = BenchModule(source.model, source.task, source.protocol, ("valid", "test"))
    assert [layer.recall for layer in layers] == [told["recall"] for told in diagnose(module, examples)["layers"]]
    batch = examples.batch(torch.arange(count))
    choosing = range(K, LENGTH)  # position p may use p + 1 keys
    for layer, (attention, x, valid) in zip(layers, inputs_of(source.model, batch), strict=True):
        seen, shares = look(attention, x, valid), []
        for row in range(count):
            for query in choosing:
                near = seen.neighbours(row, 1, query)
                assert len(near.hits) + len(near.missed) == len(near.hits) + len(near.false) == K
                shares.append(len(near.hits) / K)
        assert layer.queries == len(shares)
        assert layer.recall[1] == pytest.approx(sum(shares) / len(shares))
        assert layer.chance == pytest.approx(sum(K / (query + 1) for query in choosing) / len(choosing))


def test_the_window_lies_whole_on_the_curve(kept: Path) -> None:
    source = open_source(checkpoint(kept), kept / "runs")
    attention, x, valid = list(inputs_of(source.model, held_out(source).batch))[1]
    view = View("trained", look(attention, x, valid), 0, 30)
    codes = view.seen.codes[0, 0]
    assert sorted(view.order) == list(range(31))
    assert [int(codes[key]) for key in view.order] == sorted(int(codes[key]) for key in range(31))
    taken = sorted(view.order.index(key) for key in (*view.neighbours.hits, *view.neighbours.false))
    assert taken == list(range(taken[0], taken[0] + K))
    reach = max(view.distances([*view.neighbours.hits, *view.neighbours.missed]))
    others = set(view.order) - {*view.neighbours.hits, *view.neighbours.missed}
    assert all(distance >= reach for distance in view.distances(sorted(others)))


def test_distances_of_the_newest_keys_are_the_smallest(kept: Path) -> None:
    source = open_source(checkpoint(kept, f"zeta-local:k={K},chunk=1"), kept / "runs")
    layers, count = measure(source.model, source.task.examples("test"), source.label)
    every = count * (LENGTH - K)
    for layer in layers:
        assert layer.distances.tolist() == [[every] * K + [0] * (LENGTH - K)] * 2
        uniform = [count * sum(K / (p + 1) for p in range(max(K, away), LENGTH)) for away in range(LENGTH)]
        assert layer.uniform.tolist() == pytest.approx(uniform)
        assert float(layer.uniform.sum()) == pytest.approx(every * K)
    bins = distance_bins(LENGTH)
    assert bins == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 39)]
    assert ratios(layers[0].uniform, layers[0].uniform, bins) == pytest.approx([1.0] * 7)
    assert ratios(layers[0].distances[0], layers[0].uniform, bins)[3:] == [0.0] * 4


ZETAS = ("zeta", "zeta-token", "zeta-oracle:score=dot", "zeta-hybrid:local_window=3", "zeta-dot", "zeta-mean")
OTHERS = ("vanilla", "topk", "performer", "local")


@pytest.mark.parametrize("attn", [*ZETAS, *OTHERS])
@pytest.mark.parametrize("first", [0, 7])
def test_weights_are_those_that_the_output_is_made_with(attn: str, first: int) -> None:
    choice = find_variant(attn)
    layer = build(choice, AttentionSpec(d_model=16, n_heads=2, max_len=32)).eval()
    x = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(5))
    weights = weights_of(layer, x, None, first, attn)
    assert weights.shape == (1, 2, 32, 32 - first)
    if first:
        assert torch.equal(weights, weights_of(layer, x, None, 0, attn)[..., first:])
        return
    v = layer._heads(layer.value(x)) if hasattr(layer, "value") else layer.projected(x)[2]
    torch.testing.assert_close(layer.out((weights @ v).transpose(1, 2).flatten(2)), layer(x))


@pytest.mark.parametrize("attn", ["zeta:k=2,chunk=8", "zeta-token:k=2"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_no_key(causal: bool, attn: str) -> None:
    layer = build(find_variant(attn), AttentionSpec(d_model=16, n_heads=2, max_len=32, causal=causal)).eval()
    draws = torch.Generator().manual_seed(1)
    valid = torch.rand(3, 32, generator=draws) < 0.6
    seen = look(layer, torch.randn(3, 32, 16, generator=draws), valid)
    chunk = int(layer.config.chunk)
    for row in range(3):
        for query in range(32):
            end = (query + 1 if chunk == 1 else query // chunk * chunk) if causal else 32
            keys = [key for key in range(end) if valid[row, key]]
            assert seen.permitted_keys(row, query) == keys
            assert int(seen.permitted[row, query]) == len(keys)
            assert bool(seen.choosing[row, query]) == (len(keys) > 2 and bool(valid[row, query]))
            near = seen.neighbours(row, 0, query)
            assert {*near.hits, *near.missed, *near.false} <= set(keys)


def test_as_many_keys_are_drawn_at_random_as_are_selected(kept: Path) -> None:
    source = open_source(checkpoint(kept, "zeta:k=2", FindMark), kept / "runs")
    for layer in measure(source.model, source.task.examples("test"), source.label)[0]:
        assert layer.queries > 0
        assert layer.distances.sum(1).tolist() == [layer.queries * 2] * 2
        assert float(layer.uniform.sum()) == pytest.approx(layer.queries * 2)


def test_a_text_is_laid_out_line_by_line() -> None:
    cells = lay_out(["ab", "c\n", "\x1b", "", "defg", "h"], columns=5)
    assert [(cell.line, cell.column, cell.written) for cell in cells] == [
        (0, 0, "ab"), (0, 2, "c↵"), (1, 0, "·"), (1, 1, "·"), (2, 0, "defg"), (2, 4, "h"),
    ]  # fmt: skip


def test_a_token_is_what_it_adds_to_the_text() -> None:
    class Words(Letters):
        def decode(self, ids: Any) -> str:
            return " ".join("ab"[id] for id in ids)

    class Utf8(Letters):
        def decode(self, ids: Any) -> str:
            return bytes(ids).decode(errors="replace")

    assert pieces(Words(), [0, 1, 1]) == ["a", " b", " b"]
    assert pieces(Utf8(), list("aï€b".encode())) == ["a", "", "ï", "", "", "€", "b"]
    assert pieces(Utf8(), [255, 97, 98]) == ["", "\N{REPLACEMENT CHARACTER}a", "b"]


def test_a_text_of_ones_own(kept: Path, tmp_path: Path) -> None:
    path, text = checkpoint(kept), tmp_path / "mine.txt"
    text.write_text("abc$\\ e_" * 20, encoding="utf-8")
    done = draw(kept, tmp_path, path, "--text", str(text), "--layer", "0", "--head", "1", "--query", "12")
    assert (done.code, done.err) == (0, "")
    for content, told in ((b"abc", "may use 3 keys and would take 4"), (b"", "has no token"), (b"\xff", "no text")):
        text.write_bytes(content)
        assert told in draw(kept, tmp_path, path, "--text", str(text)).sentence()
    assert "cannot be read: No such file" in draw(kept, tmp_path, path, "--text", str(tmp_path / "no")).sentence()


def test_what_cannot_be_drawn_says_so(kept: Path, tmp_path: Path) -> None:
    path, to = checkpoint(kept), tmp_path / "none"
    assert "there is no checkpoint" in draw(kept, to, tmp_path / "no.ckpt").sentence()
    assert "'vanilla' has no coordinates" in draw(kept, to, checkpoint(kept, "vanilla")).sentence()
    assert "(search=none)" in draw(kept, to, checkpoint(kept, "zeta-mean")).sentence()
    assert "--layer 2: this model has layers 0 to 1" in draw(kept, to, path, "--layer", "2").sentence()
    assert "--head -1: its layers have heads 0 to 1" in draw(kept, to, path, "--head", "-1").sentence()
    assert "--query 40: the sequence has positions 0 to 39" in draw(kept, to, path, "--query", "40").sentence()
    assert "has no choice to draw" in draw(kept, to, path, "--query", "3").sentence()
    other = checkpoint(kept, toy=FirstToken)
    assert "was trained on other data (FirstToken" in draw(kept, to, path, "--beside", str(other)).sentence()
    assert not to.exists()
    to.write_text("a file", encoding="utf-8")
    assert "choose another folder with --to" in draw(kept, to, path).sentence()


@pytest.mark.parametrize(("toy", "count"), [(FirstToken, 3), (FindMark, 3)])
def test_a_task_without_a_text_has_the_other_pictures(kept: Path, tmp_path: Path, toy: type[Toy], count: int) -> None:
    path = checkpoint(kept, "zeta-token:k=2" if toy is FirstToken else "zeta:k=2", toy)
    done = draw(kept, tmp_path, path)
    assert done.code == 0
    assert done.err == f"the tokens of {toy.__name__} are no text, so there is no picture of a text.\n"
    assert len(list(tmp_path.iterdir())) == len(done.out.split()) == count
    text = tmp_path / "some.txt"
    text.write_text("abc", encoding="utf-8")
    assert "are no text" in draw(kept, tmp_path, path, "--text", str(text)).sentence()


def test_the_same_checkpoint_gives_the_same_pictures(kept: Path) -> None:
    source = open_source(checkpoint(kept), kept / "runs")
    sitting = sit(source, held_out(source), None, 0, None)
    first, again = ([drawing.digest for drawing in draw_all(sitting, None)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 4
    assert Image.open(BytesIO(next(iter(draw_all(sitting, None))).png())).format == "PNG"


def test_of_a_long_text_the_end_is_shown(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeta_bench.gallery.pictures.SHOWN", 12)
    monkeypatch.setattr("zeta_bench.gallery.pictures.BEHIND", 2)
    source = open_source(checkpoint(kept), kept / "runs")
    passage = held_out(source)
    _, drawing, *_ = draw_all(sit(source, passage, None, 0, 30), None)
    assert "shown are the positions 21 to 32" in drawing.told[-1]
    assert passage.tokens is not None
    shown = [each.get_text() for each in drawing.figure.axes[0].texts]
    assert shown == [letter.replace("\n", "↵") for letter in passage.tokens[21:33]]
