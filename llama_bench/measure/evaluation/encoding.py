"""Text as token ids: what stands before a text, and where in a text a continuation begins.

Two policies of what stands before it (`bos`). By default one BOS does, if the tokenizer has one:
models were trained so, some tokenizers add it by themselves and others do not, so it is put in
front here, whatever the tokenizer does. `stock` is what lm-eval's own models do: a context begins
as the tokenizer begins it, and a rolling text is charged a second BOS where the tokenizer adds one.

Tokens do not end where a context ends. As in lm-eval, blanks at a context's end go over to the
continuation, where tokenizers join them to the word that follows. What is scored are the tokens
that the context alone does not give; where the context's own tokens do not begin the whole's ("foo"
and "s" may become "foos"), the whole is cut by characters: scored is every token that reaches
beyond the context. Such pairs are counted (`respelled`), and so are texts that do not come back
from their tokens as they were (`lossy`): what a tokenizer drops is charged nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llama_bench.measure.evaluation.packing import common


@dataclass
class Pair:
    """Ids of context and continuation as one; scored are those from `start` on, which spell
    `scored_bytes` bytes of text. `ids` are empty where nothing can be scored, for `reason`."""

    ids: list[int]
    start: int
    scored_bytes: int
    respelled: bool = False
    lossy: bool = False
    truncated: bool = False
    reason: str | None = None


class Encoding:
    """A tokenizer, the model's window, and the policy of what stands before a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, window: int, bos: str | None = None):
        self.tokenizer, self.window, self.bos = tokenizer, window, bos

    @property
    def start(self) -> int:
        """What stands before a text's first token: BOS, or what ended the text before."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        return 0

    def encode(self, text: str) -> list[int]:
        """Token ids of a text from its start."""
        return self.all([text])[text]

    def all(self, texts: list[str]) -> dict[str, list[int]]:
        """Token ids of each text from its start; a text that is asked twice is encoded once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        bos, token = self.tokenizer.bos_token_id, self.tokenizer.bos_token
        if self.bos == "stock":
            own = [text for text in distinct if not (token and text.startswith(token))]
            found = self._plain([t for t in distinct if t not in set(own)], specials=False)
            return found | self._plain(own, specials=True)
        found = self._plain(distinct, specials=False)
        if bos is None:
            return found
        return {text: ids if ids[:1] == [bos] else [bos, *ids] for text, ids in found.items()}

    def _plain(self, texts: list[str], specials: bool) -> dict[str, list[int]]:
        if not texts:
            return {}
        ids = self.tokenizer(texts, add_special_tokens=specials)["input_ids"]
        return dict(zip(texts, ids, strict=True))

    def pairs(self, asked: list[tuple[str, str]]) -> list[Pair]:
        """Each context with its continuation, cut to the window."""
        moved = [_blanks_moved(*each) for each in asked]
        wholes = self.all([context + continuation for context, continuation in moved])
        stems = self.all([context for context, _ in moved])
        lossy = self._lossy(wholes)
        found = []
        for context, continuation in moved:
            whole = context + continuation
            pair = self._pair(context, continuation, wholes[whole], stems[context])
            pair.lossy = whole in lossy
            found.append(self._fitted(pair))
        return found

    def _pair(self, context: str, continuation: str, whole: list[int], stem: list[int]) -> Pair:
        start, first = len(stem), len(context)
        respelled = whole[:start] != stem
        if respelled:
            start, first = self._first_beyond(context + continuation, context, whole, stem)
        if not context and self.bos == "stock":  # lm-eval puts BOS alone before it
            whole = self.tokenizer.encode(continuation, add_special_tokens=False)
            whole, start = (whole if whole[:1] == [self.start] else [self.start, *whole]), 1
        elif start == 0:
            whole, start = [self.start, *whole], 1
        size = len((context + continuation)[first:].encode())
        return Pair(list(whole), start, size, respelled=respelled)

    def _first_beyond(self, text: str, context: str, whole: list[int], stem: list[int]):
        """The first token that reaches beyond the context, and the character it begins with."""
        alike = common(whole, stem)
        if not self.tokenizer.is_fast:  # tells no offsets: all that the two do not share
            return alike, len(self.tokenizer.decode(whole[:alike], skip_special_tokens=True))
        plain = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = plain["input_ids"], range(len(whole))
        # BOS is put in front of them, and EOS may stand behind
        found = (place for place in places if whole[place : place + len(ids)] == ids)
        added = next(found, len(whole) - len(ids))  # as if all were in front, where ids change
        for place, (first, end) in enumerate(plain["offset_mapping"]):
            if end > len(context):
                return place + added, min(first, len(context))
        return len(whole), len(text)

    def _lossy(self, encoded: dict[str, list[int]]) -> set[str]:
        """The texts that their tokens do not give back; blanks at both ends are the decoder's."""
        texts = self.tokenizer.batch_decode(
            list(encoded.values()), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        marks = [token for token in self.tokenizer.all_special_tokens if token]
        lost = set()
        for text, back in zip(encoded, texts, strict=True):
            if back.strip() != text.strip() and not any(mark in text for mark in marks):
                lost.add(text)
        return lost

    def _fitted(self, pair: Pair) -> Pair:
        """A text too long loses its beginning; nothing is left where there is nothing to score."""
        if pair.start >= len(pair.ids):
            pair.reason = "the continuation encodes to nothing"
        elif len(pair.ids) - pair.start > self.window:
            tokens = len(pair.ids) - pair.start
            pair.reason = f"the continuation has {tokens} tokens, the window {self.window}"
        if pair.reason:
            pair.ids, pair.start = [], 0
            return pair
        excess = max(0, len(pair.ids) - (self.window + 1))
        pair.truncated = excess > 0
        pair.ids, pair.start = pair.ids[excess:], pair.start - excess
        return pair

    def rolling(self, texts: list[str]) -> list[Pair]:
        """Whole texts, without what stands before their first token."""
        encoded = self.all(texts)
        lossy = self._lossy(encoded)
        found = []
        for text in texts:
            ids = encoded[text]
            if self.bos != "stock" and ids[:1] == [self.start]:
                ids = ids[1:]
            reason = None if ids else "the text encodes to nothing"
            found.append(Pair(ids, 0, len(text.encode()), lossy=text in lossy, reason=reason))
        return found


def _blanks_moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
