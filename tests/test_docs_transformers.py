"""ZETA in a model of transformers: examples/zeta_in_transformers.py keeps what docs/use-zeta.md says of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers", reason="needs transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from zeta_in_transformers import use_zeta  # noqa: E402  (behind what may skip it)

N, VOCAB = 24, 64
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
"""Llama with two query heads to a head of keys and values."""


def llama(**settings: Any) -> Any:
    """A small Llama in float64, so that no rounding moves a coordinate into another cell."""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **settings})).double().eval()


def tokens(batch: int = 2, length: int = N) -> Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Any, x: Tensor, **more: Any) -> Tensor:
    return model(x, use_cache=False, **more).logits


@pytest.mark.parametrize("settings", [{}, {"mean": False}, {"local_window": 3}, {"d_k": 2}], ids=str)
def test_with_a_cache_it_is_the_model_without(settings: dict[str, Any]) -> None:
    model, x = llama(), tokens()
    use_zeta(model, topk=4, **settings)
    past, parts = None, []
    with torch.no_grad():
        for piece in (x[:, :10], x[:, 10:11], x[:, 11:20], *x[:, 20:].split(1, dim=1)):
            out = model(piece, past_key_values=past, use_cache=True)
            past = out.past_key_values
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), logits(model, x))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str) -> None:
    model, x = llama(), tokens()
    use_zeta(model, topk=4)
    junk = tokens(2, 7)
    parts = (junk, x) if side == "left" else (x, junk)
    mask = torch.cat([torch.full_like(part, int(part is x)) for part in parts], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    found = logits(model, torch.cat(parts, 1), attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(found[mask.bool()].view(2, N, -1), logits(model, x))


def test_generate_with_left_padding_is_generate_without() -> None:
    model, x = llama(), tokens(1)
    use_zeta(model, topk=4)
    how = {"max_new_tokens": 6, "do_sample": False}
    mask = torch.cat((torch.zeros(1, 5, dtype=torch.long), torch.ones_like(x)), 1)
    padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), x), 1)
    alone = model.generate(x, attention_mask=torch.ones_like(x), **how)[:, N:]
    assert alone.shape == (1, 6)
    assert torch.equal(model.generate(padded, attention_mask=mask, **how)[:, N + 5 :], alone)


def test_it_is_causal() -> None:
    model, x = llama(), tokens()
    use_zeta(model, topk=4)
    changed = x.clone()
    changed[:, 15:] = tokens(2, N - 15).flip(0)
    assert not torch.equal(changed, x)
    torch.testing.assert_close(logits(model, x)[:, :15], logits(model, changed)[:, :15])


def test_an_encoder_is_bidirectional_and_respects_padding() -> None:
    torch.manual_seed(0)
    sizes = {key: SMALL[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    model = transformers.BertModel(transformers.BertConfig(**sizes, num_attention_heads=4)).double().eval()
    assert len(use_zeta(model, topk=4)) == 2
    x, changed = tokens(), tokens()
    changed[:, -1] = 1 + changed[:, -1] % (VOCAB - 1)
    mask = torch.ones_like(x)
    mask[:, -1] = 0
    with torch.no_grad():
        states = [model(each).last_hidden_state for each in (x, changed)]
        masked = [model(each, attention_mask=mask).last_hidden_state[:, :-1] for each in (x, changed)]
    assert not torch.allclose(states[0][:, 0], states[1][:, 0])  # the first token sees the last
    torch.testing.assert_close(*masked)


def test_gradients_reach_the_maps_and_training_lowers_the_loss() -> None:
    model, x = llama().float().train(), tokens(8)
    maps = use_zeta(model, topk=4)
    optimiser = torch.optim.AdamW([{"params": maps.parameters(), "lr": 1e-2}], lr=1e-2)
    model.requires_grad_(False)
    maps.requires_grad_(True)  # the maps alone, as docs/use-zeta.md begins
    losses = []
    for _ in range(20):
        loss = model(x, labels=x).loss
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in maps.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    from safetensors.torch import load_model

    model, x = llama(), tokens()
    use_zeta(model, topk=4)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    use_zeta(again, topk=4)
    load_model(again, tmp_path / "model.safetensors")
    assert torch.equal(logits(again, x), logits(model, x))


def test_bf16_keeps_the_coordinates_in_fp32() -> None:
    model, x = llama().bfloat16(), tokens()
    maps = use_zeta(model, topk=4)
    q, k = maps[0](torch.randn(1, 4, 5, 8).bfloat16(), torch.randn(1, 2, 5, 8).bfloat16())
    assert q.dtype == k.dtype == torch.float32
    assert q.shape == k.shape == (1, 4, 5, 3)
    assert logits(model, x).isfinite().all()


def refusal(model: Any, *inputs: Any, **more: Any) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the text is what the callers look at)
        model(*inputs, **more)
    return str(error.value)


def test_what_it_cannot_do_is_refused() -> None:
    model, x = llama(), tokens()
    use_zeta(model)
    assert "padding mask" in refusal(model, x, attention_mask=torch.ones(2, 1, N, N))
    packed = torch.arange(N).remainder(N // 2)[None].expand(2, -1)
    assert "packed sequences" in refusal(model, x, position_ids=packed, use_cache=False)
    static = transformers.StaticCache(config=model.config, max_cache_len=2 * N)
    assert "use DynamicCache" in refusal(model, x, past_key_values=static)
    dropping = llama(attention_dropout=0.1)
    use_zeta(dropping)
    assert "no attention dropout" in refusal(dropping.train(), x)


def test_a_model_without_the_coordinates_says_what_to_call() -> None:
    model = llama()
    model.set_attn_implementation("zeta")
    assert "call use_zeta(model) first" in refusal(model, tokens())


def test_a_window_of_the_model_is_refused_and_nothing_is_left_behind() -> None:
    settings = {**SMALL, "sliding_window": 8}
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**settings)).eval()
    use_zeta(model)
    assert "sliding_window" in refusal(model, tokens())


def test_a_search_for_layers_that_fails_leaves_the_model_as_it_was() -> None:
    model = llama()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match="input_ids"):
        use_zeta(model, inputs={"no_such_input": tokens()})
    assert model.config._attn_implementation == before
