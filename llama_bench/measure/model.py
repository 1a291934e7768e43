"""Models: built from a shape, loaded from a folder or the Hub, counted, saved.

A built model is a plain `LlamaForCausalLM`, so that any tool that knows Llamas can load it. Its
weights are drawn from a generator of their own, in the order of the parameters' names as the
model lists them: one seed gives the same bytes whatever was drawn before, and drawing them
disturbs no other random numbers. The spread is GPT-2's (Radford et al. 2019, section 2.3): 0.02,
and for the two matrices of a layer that write to the residual stream 0.02 / sqrt(2 x layers), so
that the stream's variance at the start does not grow with depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants, errors, hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from llama_bench.measure import gpu, loading_report
from llama_bench.measure.ensemble_model import EnsembleConfig, EnsembleForCausalLM
from llama_bench.records import Refusal
from llama_bench.shape import Shape

SPREAD = 0.02
# of a repository: what transformers loads; no pickle, nor the same weights in another layout
_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors")
_FETCHED = (*_WEIGHTS, "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")

# an ensemble loads like any other model: the code beside its weights is this package's own
AutoConfig.register(EnsembleConfig.model_type, EnsembleConfig, exist_ok=True)
AutoModelForCausalLM.register(EnsembleConfig, EnsembleForCausalLM, exist_ok=True)


def device() -> torch.device:
    """The first GPU where torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpus() -> int:
    """Over how many one model is to be spread; 1 where there is none."""
    return gpu.wanted() if device().type == "cuda" else 1


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
    folder: Path,
    dtype: torch.dtype = torch.float32,
    trusted: bool = False,
    called: str | None = None,
    placed: str | dict | None = None,
) -> PreTrainedModel:
    """A folder's causal model, in `dtype`; on the CPU, or `placed` as accelerate has it.

    Raises Refusal, which calls it `called` ("missing" where there is no model, "refused" where it
    cannot be used). A model may run code of its own only if it is `trusted`; weights as pickle,
    which could, are never read.
    """
    called = called or str(folder)
    check(folder, called)
    with _refusing(called, trusted):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trusted,
            use_safetensors=True,
            local_files_only=not trusted,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, by name
            device_map=placed,
        )
    loading_report.check(model, report, called)
    return model


def outline(folder: Path, trusted: bool = False, called: str | None = None) -> PreTrainedModel:
    """The model that `load` would load, without its weights (on the meta device). Raises Refusal
    where it would, as far as that can be told without them."""
    called = called or str(folder)
    check(folder, called)
    with _refusing(called, trusted), torch.device("meta"):
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=trusted, local_files_only=not trusted
        )
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)


def check(folder: Path, called: str) -> None:
    """Raises Refusal where a folder has no config, or no weights that can be read whole."""
    if not (folder / "config.json").is_file():
        raise Refusal("missing", f"{called} holds no model (no config.json)")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and any(folder.glob("*.bin")):
        reason = "has its weights as pickle alone, which can run code when it is read"
        raise Refusal("refused", f"{called} {reason}; convert them to safetensors")
    if not weights:
        raise Refusal("missing", f"{called} holds no weights (no *.safetensors)")
    for path in weights:
        try:
            with safe_open(path, "pt"):  # reads the table of contents, and compares lengths
                pass
        except (SafetensorError, OSError) as error:
            reason = f"{path.name} cannot be read: {first_line(error)}"
            raise Refusal("refused", f"{called}: {reason}") from error


@contextmanager
def _refusing(called: str, trusted: bool) -> Iterator[None]:
    """What says something about a model becomes a Refusal; no memory, no network say nothing."""
    try:
        yield
    except (ValueError, KeyError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            reason = "asks to run code of its own; set trust_remote_code: true for it, if you do"
            raise Refusal("refused", f"{called} {reason}") from error
        raise Refusal("refused", f"{called} cannot be loaded: {first_line(error)}") from error
    except OSError as error:
        if trusted:  # its code may lie in a repository that is out of reach
            raise
        reason = f"{called} holds no model that can be loaded: {first_line(error)}"
        raise Refusal("missing", reason) from error


def fetched(repo: str, revision: str, trusted: bool = False) -> Path:
    """The folder of a Hub model's files, called after the commit that `revision` means.

    Raises Refusal ("missing", or "refused" where it cannot be had or used); what an unreachable
    network raises is passed on, for it is no answer about the model.
    """
    ask_hub(repo, revision)
    patterns = [*_FETCHED, *(["*.py"] if trusted else [])]
    folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    if not any(folder.glob("*.safetensors")):
        if constants.HF_HUB_OFFLINE:
            raise errors.OfflineModeIsEnabled(f"the weights of {repo} have not been fetched")
        reason = "has no weights as safetensors; a pickle, which can run code, is not fetched"
        raise Refusal("refused", f"{repo} at {revision} {reason}: convert them")
    return folder


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
