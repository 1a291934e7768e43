"""Models: built from a shape, loaded from a folder or the Hub, counted, saved.

A built model is a plain `LlamaForCausalLM`, so that any tool that knows Llamas can load it. Its
weights are drawn from a generator of their own, in the order of the parameters' names as the
model lists them: one seed gives the same bytes whatever was drawn before, and drawing them
disturbs no other random numbers. The spread is GPT-2's (Radford et al. 2019, section 2.3): 0.02,
and for the two matrices of a layer that write to the residual stream 0.02 / sqrt(2 x layers), so
that the stream's variance at the start does not grow with depth.

Importing torch and transformers takes seconds, most of it for what every model of transformers
needs; there is no shorter way to `LlamaForCausalLM`, and `AutoModelForCausalLM` comes for free.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from huggingface_hub import errors, hf_hub_download
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from llama_bench.measure.ensemble_model import EnsembleConfig, EnsembleForCausalLM
from llama_bench.records import Refusal
from llama_bench.shape import Shape

SPREAD = 0.02

# an ensemble loads like any other model: the code beside its weights is this package's own
AutoConfig.register(EnsembleConfig.model_type, EnsembleConfig, exist_ok=True)
AutoModelForCausalLM.register(EnsembleConfig, EnsembleForCausalLM, exist_ok=True)


def device() -> torch.device:
    """The first GPU where torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(
    shape: Shape, vocab_size: int, context: int, seed: int, bos_token_id: int = 0
) -> LlamaForCausalLM:
    """A Llama with random weights, float32, on the CPU; equal arguments give equal bytes.

    A document ends where the next one begins, so `bos_token_id` is the end of text as well.
    """
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are not kept
        model = LlamaForCausalLM(config_of(shape, vocab_size, context, bos_token_id))
    _draw_weights(model, shape.layers, torch.Generator().manual_seed(seed))
    return model


def config_of(shape: Shape, vocab_size: int, context: int, bos_token_id: int = 0) -> LlamaConfig:
    """A shape in the words of transformers."""
    return LlamaConfig(
        vocab_size=vocab_size,
        max_position_embeddings=context,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.ffn_width,
        tie_word_embeddings=shape.tied_embeddings,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=SPREAD,
        bos_token_id=bos_token_id,
        eos_token_id=bos_token_id,
        dtype="float32",
        attn_implementation="sdpa",
    )


@torch.no_grad()
def _draw_weights(model: LlamaForCausalLM, layers: int, generator: torch.Generator) -> None:
    for name, weight in model.named_parameters():  # tied weights are listed once
        if weight.dim() == 1:
            weight.fill_(1.0)  # the scales of RMSNorm
            continue
        writes_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        spread = SPREAD / math.sqrt(2 * layers) if writes_residual else SPREAD
        weight.normal_(0.0, spread, generator=generator)


def count(model: PreTrainedModel) -> dict[str, int]:
    """Parameters of the real weights, by the three definitions of `Shape.parameters`; of an
    ensemble all members' together."""
    counts = [_count(part) for part in parts(model)]
    return {kind: sum(each[kind] for each in counts) for kind in counts[0]}


def parts(model: PreTrainedModel) -> list[PreTrainedModel]:
    """The members of an ensemble; any other model is its own part."""
    return model.members if isinstance(model, EnsembleForCausalLM) else [model]


def _count(model: PreTrainedModel) -> dict[str, int]:
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    everything = sum(weight.numel() for weight in model.parameters())
    in_products = {
        id(weight): weight.numel()
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)  # looked up, not multiplied
        for weight in module.parameters(recurse=False)
        if weight.dim() == 2
    }
    return {
        "all": everything,
        "without_embeddings": everything - sum({id(t): t.numel() for t in tables}.values()),
        "in_matrix_products": sum(in_products.values()),
    }


def save(model: PreTrainedModel, folder: Path, weights: dict | None = None) -> None:
    """A folder that `AutoModelForCausalLM.from_pretrained` loads (weights as safetensors); of
    `weights` by name, where the model's own are spread over devices."""
    model.save_pretrained(folder, state_dict=weights)


def load(
    source: Path | str,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    trusted: bool = False,
) -> PreTrainedModel:
    """A pretrained causal model, in `dtype`, on the CPU.

    `source` is a local folder, or with a `revision` a repository on the Hub. Raises Refusal
    ("missing" where there is no such thing, "refused" where it cannot be had or used); what an
    unreachable network raises is passed on, for it is no answer about the model. A repository may
    run code of its own only if it is `trusted`; weights as pickle, which could, are never read.
    """
    if revision is None:
        _refuse_what_is_no_model(Path(source))
    else:
        ask_hub(str(source), revision)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision or "main",
            dtype=dtype,
            trust_remote_code=trusted,
            use_safetensors=True,
            local_files_only=revision is None,
            output_loading_info=True,
        )
    except (ValueError, KeyError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "mismatch" not in str(error):
            raise  # no memory, no network: says nothing about the model
        if "trust_remote_code" in str(error):
            reason = "asks to run code of its own; set trust_remote_code: true for it, if you do"
            raise Refusal("refused", f"{source} {reason}") from error
        raise Refusal("refused", f"{source} cannot be loaded: {first_line(error)}") from error
    except OSError as error:
        if revision is None or isinstance(error.__cause__, errors.RemoteEntryNotFoundError):
            reason = f"{source} holds no model that can be loaded: {first_line(error)}"
            raise Refusal("missing", reason) from error
        raise
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise Refusal("refused", f"{source} lacks weights that its config asks for: {names}")
    return model


def _refuse_what_is_no_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise Refusal("missing", f"{folder} holds no model (no config.json)")
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        reason = "has its weights as pickle alone, which can run code when it is read"
        raise Refusal("refused", f"{folder} {reason}; convert them to safetensors")


def ask_hub(repo: str, revision: str) -> None:
    """Fetch the config alone: the Hub's typed errors tell what a model's loading would blur."""
    try:
        hf_hub_download(repo, "config.json", revision=revision)
    except errors.GatedRepoError:
        reason = f"{repo} is gated: accept its terms on the Hub and log in with `hf auth login`"
        raise Refusal("refused", reason) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise Refusal("missing", f"{repo} is no repository on the Hub, or a private one") from None
    except errors.RevisionNotFoundError:
        raise Refusal("missing", f"{repo} has no revision {revision}") from None
    except errors.RemoteEntryNotFoundError:
        raise Refusal("missing", f"{repo} at {revision} holds no model (no config.json)") from None


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip() if lines else ''}"
