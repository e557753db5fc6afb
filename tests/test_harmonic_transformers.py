"""HarmonicHead in the place of a transformers model's lm_head: training, generation, tied embeddings, saving."""

import pytest
import torch
from lossk.nn import HarmonicHead
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture(scope="module")
def config():
    return LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip


def harmonic_model(config, **head):
    model = LlamaForCausalLM(config)
    model.lm_head = HarmonicHead(config.hidden_size, config.vocab_size, **head)
    return model


HEADS = {
    "euclidean": {},
    "cosine": dict(distance="cosine"),
    "manhattan": dict(distance="manhattan"),
    "mahalanobis": dict(distance="mahalanobis", precision="diagonal"),
}


@pytest.mark.parametrize("head", HEADS)
def test_loss_without_logits_is_that_of_the_models_own(config, head):
    torch.manual_seed(0)
    model = harmonic_model(config, exponent=20.0, **HEADS[head])
    tokens = torch.randint(97, (2, 12))
    dense = model(tokens, labels=tokens).loss
    hidden = model.model(tokens).last_hidden_state
    ours = model.lm_head(hidden[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-5)
    ours.backward()
    assert model.lm_head.weight.grad.any() and model.model.embed_tokens.weight.grad.any()


def test_generates_what_it_has_learnt(config):
    """A sequence that is its own continuation: after training it goes on with it, with and without a cache."""
    torch.manual_seed(0)
    model = harmonic_model(config, exponent=32.0)
    tokens = (10 + torch.arange(8)).repeat(4)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        hidden = model.model(tokens[:, :-1]).last_hidden_state
        loss = model.lm_head(hidden, tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    for cache in (True, False):
        out = model.generate(tokens[:, :12], max_new_tokens=10, do_sample=False, use_cache=cache, pad_token_id=0)
        assert torch.equal(out, tokens[:, :22])


def test_tied_to_the_embedding_and_saved(config, tmp_path):
    torch.manual_seed(0)
    model = harmonic_model(config)
    model.lm_head.weight = model.model.embed_tokens.weight
    model(torch.randint(97, (2, 12)), labels=torch.randint(97, (2, 12))).loss.backward()
    assert len({id(p) for p in model.parameters()}) == len(list(model.parameters()))
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    again = harmonic_model(config)
    again.lm_head.weight = again.model.embed_tokens.weight
    again.load_state_dict(torch.load(path))
    tokens = torch.randint(97, (1, 8))
    assert torch.equal(model(tokens).logits, again(tokens).logits)
