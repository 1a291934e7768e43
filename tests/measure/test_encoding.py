"""Where a text begins and a continuation is scored, on real tokenizers."""

import pytest
from lm_eval.api.instance import Instance
from tiny_llama import adapter, checkpoint
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_bench.measure.evaluation.encoding import Encoding


@pytest.fixture(scope="module")
def bytes_tokenizer(prepared):
    return AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")


def pair(tokenizer, context, continuation, bos=None, window=64):
    (found,) = Encoding(tokenizer, window, bos).pairs([(context, continuation)])
    return found


def scored(tokenizer, found):
    return tokenizer.decode(found.ids[found.start :])


def test_blanks_at_a_contexts_end_are_scored_with_what_follows(bytes_tokenizer):
    """They are in the likelihood, so they are in the bytes that it is divided by."""
    for context, continuation in (("import ", "os"), ("import", " os")):
        found = pair(bytes_tokenizer, context, continuation)
        assert scored(bytes_tokenizer, found) == " os"
        assert found.scored_bytes == len(" os") and not found.respelled


def test_a_continuation_that_is_missing_has_a_reason(bytes_tokenizer):
    found = pair(bytes_tokenizer, "import os", "")
    assert found.ids == [] and "nothing" in found.reason
    assert not pair(bytes_tokenizer, "import os", "\n").reason


@pytest.mark.parametrize("tokens, fits", [(64, True), (65, False)])
def test_a_continuation_may_fill_the_window_and_no_more(bytes_tokenizer, tokens, fits):
    found = pair(bytes_tokenizer, "a", "\x01" * tokens)  # a byte that is no part of longer tokens
    assert (found.reason is None) is fits
    assert found.truncated is fits
    if not fits:
        assert "65 tokens, the window 64" in found.reason


def test_a_word_cut_by_the_border_is_scored_whole_and_counted(bytes_tokenizer):
    """Where context and continuation are one token, that token is the answer: all its bytes."""
    words = sorted(w for w in bytes_tokenizer.get_vocab() if len(w) >= 4 and w.isalpha())
    one = [
        w
        for w in words
        if w.isascii() and len(bytes_tokenizer.encode(w, add_special_tokens=False)) == 1
    ]
    for word in one[:20]:
        found = pair(bytes_tokenizer, word[:2], word[2:])
        assert found.respelled
        assert scored(bytes_tokenizer, found) == word and found.scored_bytes == len(word)


def test_what_changes_before_the_border_is_cut_by_characters(bytes_tokenizer):
    """The tokens of `retu` are not those that `return` begins with; scored is what reaches beyond
    the context, and no more."""
    tokenizer = bytes_tokenizer
    text = "def f():\n    return x"
    for cut in range(1, len(text)):
        found = pair(tokenizer, text[:cut], text[cut:])
        bare = len(text[:cut].rstrip())
        tail = text[len(text) - len(scored(tokenizer, found)) :]
        assert scored(tokenizer, found) == tail  # it ends the text
        assert len(tail) >= len(text) - bare and found.scored_bytes == len(tail.encode())
        first = tokenizer.decode(found.ids[found.start : found.start + 1])
        assert len(tail) - len(first) < len(text) - bare  # no token lies before the border


def test_characters_cut_by_a_token_are_paid_for_once(bytes_tokenizer):
    """Four bytes of an emoji are four tokens here: none of them is lost on either side."""
    for context, continuation in (("x = '", "🙂'"), ("x = '🙂", "🙂'"), ("é", "ü🙂")):
        found = pair(bytes_tokenizer, context, continuation)
        assert scored(bytes_tokenizer, found) == continuation
        assert found.scored_bytes == len(continuation.encode()) and not found.lossy


def test_likelihoods_of_parts_add_up_to_the_whole(prepared, tmp_path):
    """The chain rule: context, then continuation, is the text in one; nothing is paid twice."""
    lm = adapter(checkpoint(tmp_path / "checkpoint", prepared))

    def ask(kind, *arguments):
        return [
            Instance(kind, {}, each, 0, metadata=("t", number, 1))
            for number, each in enumerate(arguments)
        ]

    for context, continuation in (("import os", ", sys"), ("x = '🙂", "🙂'"), ("a ", "b")):
        both = lm.loglikelihood(
            ask("loglikelihood", ("", context.rstrip()), (context, continuation))
        )
        (whole,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (context + continuation,)))
        assert sum(total for total, _ in both) == pytest.approx(whole, rel=1e-5)


def word_level(*words, **settings):
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_text_that_a_tokenizer_loses_is_counted():
    """A word that it does not know, and case that it drops, are charged nothing."""
    plain = word_level("[UNK]", "the", "cat", "sat")
    assert pair(plain, "the cat", " sat").lossy is False
    assert pair(plain, "the cat", " flew").lossy is True
    lower = word_level("[UNK]", "the", "cat", "sat", normalizer=normalizers.Lowercase())
    assert pair(lower, "the cat", " SAT").lossy is True
    (text,) = Encoding(lower, 64).rolling(["The cat sat"])
    assert text.lossy and len(text.ids) == 3


def test_real_tokenizers_lose_nothing(shared):
    for name in ("stories260K", "stories3M"):
        tokenizer = AutoTokenizer.from_pretrained(shared("models", name))
        for text in ("Once upon a time", "naïve café 🙂", "two  blanks\n\nand lines"):
            (found,) = Encoding(tokenizer, 512).rolling([text])
            assert not found.lossy, text


def test_one_bos_or_as_the_tokenizer_has_it(shared, bytes_tokenizer):
    adds = AutoTokenizer.from_pretrained(shared("models", "stories260K"))
    bos = adds.bos_token_id
    assert Encoding(adds, 512).encode("a cat").count(bos) == 1
    assert Encoding(adds, 512, "stock").encode("a cat").count(bos) == 1
    assert Encoding(adds, 512).rolling(["a cat"])[0].ids.count(bos) == 0
    assert Encoding(adds, 512, "stock").rolling(["a cat"])[0].ids.count(bos) == 1  # the second one
    own = bytes_tokenizer.encode("import")
    assert Encoding(bytes_tokenizer, 512, "stock").encode("import") == own


def test_a_tokenizer_without_bos_begins_with_what_ends_a_text():
    tokenizer = word_level("[UNK]", "the", "cat", "<end>")
    tokenizer.eos_token = "<end>"
    found = pair(tokenizer, "", "the cat")
    assert found.ids == [3, 1, 2] and found.start == 1
    assert pair(tokenizer, "the", " cat").ids == [1, 2]


@pytest.mark.parametrize("behind", [[], ["[EOS]"]])
@pytest.mark.parametrize("before", [[], ["[BOS]"]])
def test_what_a_tokenizer_puts_behind_a_text_moves_no_border(before, behind):
    """As it has them (`stock`), a context ends in EOS and the whole does not go on from there."""
    words = ("[UNK]", "the", "cat", "sat", "down", "[BOS]", "[EOS]")
    form = " ".join([*before, "$A", *behind])
    added = [(mark, words.index(mark)) for mark in before + behind]
    tokenizer = word_level(
        *words, post_processor=processors.TemplateProcessing(single=form, special_tokens=added)
    )
    found = pair(tokenizer, "the cat", " sat down", bos="stock")
    assert tokenizer.convert_ids_to_tokens(found.ids) == [
        *before, "the", "cat", "sat", "down", *behind,
    ]  # fmt: skip
    assert scored(tokenizer, found).split() == ["sat", "down", *behind]
    assert found.scored_bytes == len(" sat down") and found.respelled is bool(behind)
