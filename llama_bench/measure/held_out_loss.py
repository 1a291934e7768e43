"""The loss of any causal model on held-out text: nats per token, on the windows that trainings use.

A training measures its own with the code that trained it (training/validation.py); a model that
was fine-tuned, fused or loaded is asked here, through transformers' forward pass in float32, on the
same windows, so that the numbers compare. What chooses among models has other windows, between
those: it must not judge them. A tokenizer of its own splits text differently, so a model that has
one gets the same documents in its own tokens. (Not the test documents: fine-tunings learn from
them.)

Logits are the largest tensor there is, so they are held a few million at a time; where one window
has more, it is read in pieces through the key-value cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.text.held_out import TOKEN_BYTES, TOKENIZER, VALIDATION
from llama_bench.measure.text.tokenizer import Encoder
from llama_bench.measure.training.validation import VALIDATION_TOKENS, judged
from llama_bench.sources import same_tokenizer

CHOOSING_TOKENS = VALIDATION_TOKENS // 2  # every candidate is asked them again
LOGITS_AT_ONCE = 2**22  # on a CPU: 16 MB
LOGITS_ON_GPU = 2**27  # half a gigabyte


@dataclass(frozen=True)
class HeldOut:
    """Ids of windows, each (windows, context + 1) int64: `judging` for the losses that are told,
    `choosing` for decisions, which are other windows where `apart`. `token_bytes` by id."""

    judging: np.ndarray
    choosing: np.ndarray
    apart: bool
    token_bytes: np.ndarray


def windows_of(prepared: Path, context: int, tokenizer: Path | None = None) -> HeldOut:
    """Of a prepare run's held-out text, `prepared` being its folder. With the folder of another
    `tokenizer`, the same documents in its tokens; bits per byte is missing where they lose text.

    Raises UserError where there is less text than one window.
    """
    if tokenizer is None or same_tokenizer(tokenizer, prepared / TOKENIZER):
        ids, lengths = _validation(prepared), np.load(prepared / TOKEN_BYTES)
    else:
        ids, lengths = encoded(_decoded(prepared), tokenizer)
    judging, rest = _judging(ids, context)
    apart = len(rest) * context >= CHOOSING_TOKENS // 4
    wanted = max(1, CHOOSING_TOKENS // context)
    choosing = _spread(rest if apart else judging, wanted)
    return HeldOut(_cut(ids, judging, context), _cut(ids, choosing, context), apart, lengths)


def _validation(prepared: Path) -> np.ndarray:
    width = records.read(prepared / "record.json").result["token_width"]
    return np.memmap(prepared / VALIDATION, dtype={2: "<u2", 4: "<u4"}[width], mode="r")


def _decoded(prepared: Path) -> list[str]:
    """The validation documents, which lie there as tokens, each after one BOS."""
    encoder, ids = Encoder(prepared / TOKENIZER), _validation(prepared)
    documents = np.split(ids, np.flatnonzero(ids == encoder.bos))[1:]
    return encoder.tokenizer.decode_batch(
        [document[1:].tolist() for document in documents], skip_special_tokens=False
    )


def windows_of_texts(
    texts: Iterable[str], tokenizer: Path, context: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Windows (windows, context + 1) evenly spread over texts, VALIDATION_TOKENS at most, in the
    tokens of the folder `tokenizer`, and the bytes of each id; None where the texts are shorter
    than one window."""
    ids, lengths = encoded(texts, tokenizer)
    if len(ids) <= context:
        return None
    return _cut(ids, _judging(ids, context)[0], context), lengths


def encoded(texts: Iterable[str], tokenizer: Path) -> tuple[np.ndarray, np.ndarray]:
    """Documents as prepare packs them, each after one BOS, and the bytes of text of each id (all 0
    where the tokens do not hold the text)."""
    encoder = Encoder(tokenizer)
    content = [text.encode() for text in texts]
    lengths = encoder.token_bytes()
    lengths = np.zeros_like(lengths) if encoder.loss_of(content) else lengths
    return np.frombuffer(encoder.pack(content), dtype=encoder.dtype), lengths


def _judging(ids: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the windows that trainings are judged on, and of all others."""
    windows = np.arange((len(ids) - 1) // context)
    if not len(windows):
        raise UserError(
            f"data.held_out: {len(ids)} held-out tokens are shorter than one window of {context}; "
            "hold out more, or give more text"
        )
    judging = judged(len(windows), context)
    return judging, np.setdiff1d(windows, judging)


def _spread(numbers: np.ndarray, wanted: int) -> np.ndarray:
    """At most `wanted` of them, evenly."""
    places = np.linspace(0, len(numbers) - 1, min(wanted, len(numbers)))
    return numbers[places.astype(np.int64)]


def _cut(ids: np.ndarray, numbers: np.ndarray, context: int) -> np.ndarray:
    return ids[numbers[:, None] * context + np.arange(context + 1)].astype(np.int64)


@torch.inference_mode()
def losses(model: PreTrainedModel, windows: np.ndarray) -> np.ndarray:
    """Of each token but a window's first, nats, (windows, context) float64: `windows` are ids
    (windows, context + 1). The model is asked where it lies, as it is, and left in evaluation
    mode."""
    context = windows.shape[1] - 1
    vocab = model.config.get_text_config().vocab_size
    most = LOGITS_ON_GPU if model.device.type == "cuda" else LOGITS_AT_ONCE
    at_once = max(1, most // (context * vocab))
    piece = min(context, max(1, most // vocab))
    model.eval()
    found = [
        _of_batch(model, torch.from_numpy(windows[first : first + at_once]), piece)
        for first in range(0, len(windows), at_once)
    ]
    return np.concatenate(found)


def _of_batch(model: PreTrainedModel, ids: torch.Tensor, piece: int) -> np.ndarray:
    ids = ids.to(model.device)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    context, cache, parts = inputs.shape[1], None, []
    for first in range(0, context, piece):
        part = slice(first, first + piece)
        out = model(input_ids=inputs[:, part], past_key_values=cache, use_cache=piece < context)
        cache = out.get("past_key_values")
        logits = out.logits.float()
        given = logits.gather(2, targets[:, part, None])[..., 0]
        parts.append(logits.logsumexp(2) - given)
    return torch.cat(parts, 1).double().cpu().numpy()
