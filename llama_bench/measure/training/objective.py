"""What a training minimises: a Llama's mean loss, computed with the weights of its own modules.

The model stays transformers' `LlamaForCausalLM`, so that what is saved is any tool's; its forward
pass serves generation, caches and many architectures, and at small sizes those services cost more
than the products. Here stands the same arithmetic alone (Touvron et al. 2023, arXiv 2302.13971,
section 2.2): RMSNorm, rotary embeddings, causal attention, SwiGLU. A test holds it to the logits of
the model. A layer is a function of tensors only: compiled once, it serves every layer.

Fine-tuning asks for some of the tokens alone: a target that is `IGNORED` costs nothing, and no head
is asked about it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM

from llama_bench.measure.training import loss

IGNORED = -100  # as transformers marks a target that does not count
ROPE_WITHOUT_SCALE = ("default", "linear", "llama3")  # fixed angles, and no factor on them


def decoder_layer(x, cos, sin, head_size: int, epsilon: float, weights):
    """One layer on (batch, tokens, width). What reads the same input is one product."""
    norm, query, key, value, out, second_norm, gate, up, down = weights
    batch, tokens, width = x.shape
    h = functional.rms_norm(x, (width,), norm, epsilon)
    heads = functional.linear(h, torch.cat((query, key, value))).view(batch, tokens, -1, head_size)
    key_heads = key.shape[0] // head_size
    turned, v = heads.split((heads.shape[2] - key_heads, key_heads), dim=2)
    turned = _rotated(turned, cos, sin)
    q, k = turned.split((turned.shape[2] - key_heads, key_heads), dim=2)
    mixed = _attended(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    x = x + functional.linear(mixed.transpose(1, 2).reshape(batch, tokens, width), out)
    h = functional.rms_norm(x, (width,), second_norm, epsilon)
    opened, raised = functional.linear(h, torch.cat((gate, up))).chunk(2, dim=-1)
    return x + functional.linear(functional.silu(opened) * raised, down)


def _rotated(x, cos, sin):
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864, equation 34) of (batch, tokens, heads,
    head size), halves as transformers pairs them; in the precision of the angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attended(q, k, v):
    """Causal attention; on a CPU in float32 whatever the products are in, for there the kernel of
    16 bits is the slower one."""
    grouped = q.shape[1] != k.shape[1]
    on_gpu = q.device.type == "cuda"
    with torch.autocast(q.device.type, enabled=on_gpu and torch.is_autocast_enabled("cuda")):
        v = v if on_gpu else v.to(q.dtype)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


class Block(nn.Module):
    """A decoder layer of transformers, called through `decoder_layer`; what FSDP shards."""

    def __init__(self, layer: nn.Module, head_size: int):
        super().__init__()
        self.layer, self.head_size = layer, head_size

    def forward(self, x, cos, sin, work, checkpointed: bool):
        attention, mlp = self.layer.self_attn, self.layer.mlp
        norm, second_norm = self.layer.input_layernorm, self.layer.post_attention_layernorm
        modules = (norm, attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        modules += (second_norm, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        weights = [module.weight for module in modules]
        given = (x, cos, sin, self.head_size, norm.variance_epsilon, weights)
        if checkpointed:
            return checkpoint(work, *given, use_reentrant=False, preserve_rng_state=False)
        return work(*given)


def serves(model: nn.Module) -> bool:
    """Whether the arithmetic here is that of `model`: a Llama without biases, as most are."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config = model.config
    return (
        not config.attention_bias
        and not config.mlp_bias
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in ROPE_WITHOUT_SCALE
    )


class Objective(nn.Module):
    """`objective(inputs, targets, scale)`: the sum of the tokens' losses x scale, a scalar with
    gradients; without a scale the loss of each token, (batch, tokens), without them. Only a
    `masked` one looks for IGNORED targets, whose losses are 0.

    `dtype` is that of the products; weights stay float32. `checkpointed` layers keep nothing but
    their input, and are computed again on the way back (Chen et al. 2016, arXiv 1604.06174).
    """

    def __init__(self, model: LlamaForCausalLM, dtype: torch.dtype, masked: bool = False):
        super().__init__()
        config = model.config
        self.embed, self.norm, self.head = model.model.embed_tokens, model.model.norm, model.lm_head
        self.blocks = nn.ModuleList(Block(each, config.head_dim) for each in model.model.layers)
        self.dtype, self.vocab_size = dtype, config.vocab_size
        self.checkpointed, self.masked = False, masked
        positions = torch.arange(config.max_position_embeddings).float()
        angles = positions[:, None] * model.model.rotary_emb.inv_freq.cpu()
        self.register_buffer("cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None], persistent=False)
        self.be_compiled(False)

    def be_compiled(self, compiled: bool) -> None:
        """One decoder layer and one chunk of the loss: seconds to compile, at any depth."""
        self._layer, self._chunk = decoder_layer, loss.chunk
        if compiled:
            self._layer = torch.compile(decoder_layer, dynamic=False)
            self._chunk = torch.compile(loss.chunk, dynamic=False)

    def forward(self, inputs, targets, scale: float | None):
        rows = loss.rows_at_once(self.vocab_size, inputs.device)
        hidden = self.hidden(inputs, decoder_layer if scale is None else self._layer).flatten(0, 1)
        asked, places = targets.flatten(), None
        if self.masked:
            places = (asked != IGNORED).nonzero()[:, 0]
            hidden, asked = hidden[places], asked[places]
        if scale is not None:
            return loss.ChunkedCrossEntropy.apply(
                hidden, self.head.weight, asked, scale, rows, self.dtype, self._chunk
            )
        each = loss.of_each_token(hidden, self.head.weight, asked, rows, self.dtype)
        if places is not None:
            each = each.new_zeros(targets.numel()).index_copy(0, places, each)
        return each.view(targets.shape)

    def hidden(self, inputs, work) -> torch.Tensor:
        """Normed hidden states (batch, tokens, width), which the head multiplies."""
        low = self.dtype == torch.bfloat16
        cos, sin = self.cos[: inputs.shape[1]], self.sin[: inputs.shape[1]]
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=low):
            x = self.embed(inputs)
            for block in self.blocks:
                x = block(x, cos, sin, work, self.checkpointed)
        return functional.rms_norm(x, x.shape[-1:], self.norm.weight, self.norm.variance_epsilon)
