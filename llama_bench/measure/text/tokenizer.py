"""Tokenizers: trained here or elsewhere, and from text to ids.

The one trained here is a byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2). Every document
begins with one BOS; nothing else marks its end, and a special token that a text spells out is
text. What `folder` holds is enough to encode with: tokenizer.json, and tokenizer_config.json for
the BOS.

BPE works on words that a regular expression cuts out, each by itself, and most words of a corpus
are few. So each distinct word is encoded once and remembered, which is five times as fast as
encoding every document and gives the same ids.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llama_bench.fields import UserError
from llama_bench.sources import TOKENIZER_FILES

BOS = "<|bos|>"
TRAINING_BYTES_PER_ID = 4_000  # of text; twice as many make 0.5 % fewer tokens of 1,024 ids
AT_ONCE_BYTES = 1_000_000  # bounds what is held of a long document
REMEMBERED_BYTES = 32_000_000  # of distinct words

# GPT-2's words (Radford et al. 2019) in ASCII text; other text is left to the library
_WORD = re.compile(rb"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
_DOCUMENT = b""  # stands for the BOS among words, none of which is empty
# a space between two visible characters: a word ends before it, whatever else stands around
_GAP = re.compile(rb"(?<=[!-~])(?= [!-~])")


def train(texts: Iterable[bytes], vocab_size: int, folder: Path) -> None:
    """Write a tokenizer that AutoTokenizer loads. Raises UserError for too small a corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(texts, TRAINING_BYTES_PER_ID * vocab_size), trainer)
    found = tokenizer.get_vocab_size()
    if found != vocab_size:
        raise UserError(
            f"data.vocab_size: {vocab_size} ids are asked for, this corpus yields {found}; "
            "ask for at most that, or give more text"
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "pad_token": BOS,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _sample(texts: Iterable[bytes], most: int) -> Iterator[str]:
    size = 0
    for text in texts:
        yield text.decode()
        size += len(text)
        if size >= most:
            return


def copy(source: Path, folder: Path) -> None:
    """A tokenizer's own files, without a model that may lie beside them."""
    folder.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


class Encoder:
    """From text to ids, as many bytes each as `width`, in little-endian order."""

    def __init__(self, folder: Path):
        path = folder / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more exact
            raise UserError(f"{path}: is no tokenizer ({error})") from None
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocab_size = 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())
        self.dtype = np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")
        self.bos = self._begin(folder)
        self.byte_level, self.by_words = _nature(json.loads(self.tokenizer.to_str()))
        self._known: dict[bytes, bytes] = {}
        self._known_bytes = 0

    def _begin(self, folder: Path) -> int:
        for key in ("bos_token", "eos_token"):
            for name in ("tokenizer_config.json", "special_tokens_map.json"):
                file = folder / name
                token = json.loads(file.read_bytes()).get(key) if file.is_file() else None
                token = token.get("content") if isinstance(token, dict) else token
                number = self.tokenizer.token_to_id(token) if token else None
                if number is not None:
                    return number
        raise UserError(
            f"{folder}: its tokenizer has neither a bos_token nor an eos_token "
            "(tokenizer_config.json), one of which must begin a document; name one there"
        )

    def pack(self, texts: list[bytes]) -> bytes:
        """The ids of documents, one after the other, each after one BOS."""
        bos = self._bytes([self.bos])
        if not self.by_words:
            said = [text.decode() for text in texts]
            encodings = self.tokenizer.encode_batch_fast(said, add_special_tokens=False)
            return b"".join(bos + self._bytes(encoding.ids) for encoding in encodings)
        packed, held, size = [], [], 0
        for text in texts:
            held.append([_DOCUMENT])
            for piece in _pieces(text):
                held.append(_words(piece))
                size += len(piece)
                if size >= AT_ONCE_BYTES:
                    packed.append(self._looked_up(held, bos))
                    held, size = [], 0
        return b"".join([*packed, self._looked_up(held, bos)])

    def _looked_up(self, words: list[list[bytes]], bos: bytes) -> bytes:
        if self._known_bytes > REMEMBERED_BYTES:
            self._known, self._known_bytes = {}, 0
        self._known[_DOCUMENT] = bos
        self._learn(list(set().union(*words).difference(self._known)))
        return b"".join(map(self._known.__getitem__, chain.from_iterable(words)))

    def _learn(self, words: list[bytes]) -> None:
        texts = [word.decode() for word in words]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for word, encoding in zip(words, encodings, strict=True):
            self._known[word] = self._bytes(encoding.ids)
            self._known_bytes += len(word)

    def _bytes(self, ids: list[int]) -> bytes:
        return np.array(ids, dtype=self.dtype).tobytes()

    def token_bytes(self) -> np.ndarray:
        """(vocabulary,) uint16: bytes of text that each id stands for; special ones have 0.

        In the byte alphabet one character is one byte. Elsewhere U+2581 is a space, and <0xE4> a
        byte.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.uint16)
        added = self.tokenizer.get_added_tokens_decoder()
        for token, number in self.tokenizer.get_vocab(with_added_tokens=True).items():
            if number in added:
                lengths[number] = 0 if added[number].special else len(token.encode())
            elif self.byte_level:
                lengths[number] = len(token)
            elif re.fullmatch("<0x[0-9A-F]{2}>", token):
                lengths[number] = 1
            else:
                lengths[number] = len(token.replace("\u2581", " ").encode())
        return lengths

    def loss_of(self, texts: Iterable[bytes]) -> str | None:
        """What of these texts does not survive being encoded, in words; None if all of it does.

        A space that the tokenizer puts before a document is the document's: the model is asked
        for it like for any other.
        """
        lengths = self.token_bytes()
        first = self.tokenizer.encode("x", add_special_tokens=False).ids
        before = int(lengths[first].sum()) - 1
        for text in texts:
            ids = np.frombuffer(self.pack([text]), dtype=self.dtype)[1:]
            if int(lengths[ids].sum()) - len(text) not in {0, before}:
                return "the bytes of the tokens do not add up to those of the text"
            # words in the byte alphabet are the text itself, and need no second look
            if not self.by_words and self._decoded(ids) != text.decode():
                return "the tokens do not decode to the text"
        return None

    def _decoded(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)


_OURS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def _nature(content: dict) -> tuple[bool, bool]:
    """Whether tokens are in the byte alphabet; whether words can be encoded one by one."""
    before, model = content["pre_tokenizer"], content["model"]
    steps = before.get("pretokenizers", [before]) if before else []
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    by_words = (
        byte_level
        and content["normalizer"] is None
        and {key: before.get(key) for key in _OURS} == _OURS
        and model["type"] == "BPE"
        and not model.get("dropout")
        and all(token["special"] for token in content["added_tokens"])
    )
    return byte_level, by_words


def _pieces(text: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        gap = _GAP.search(text, start + AT_ONCE_BYTES)
        end = gap.start() if gap else len(text)
        yield text[start:end]
        start = end


def _words(piece: bytes) -> list[bytes]:
    """Words of ASCII text; text between gaps that holds other characters stays in one."""
    if piece.isascii():
        return _WORD.findall(piece)
    words: list[bytes] = []
    for ascii_, parts in groupby(_GAP.split(piece), bytes.isascii):
        run = b"".join(parts)
        words += _WORD.findall(run) if ascii_ else [run]
    return words
