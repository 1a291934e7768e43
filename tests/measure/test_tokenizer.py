"""Tokenizers: words one by one give what the library gives, and lost text is noticed."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llama_bench.fields import UserError
from llama_bench.measure.text import tokenizer
from llama_bench.measure.text.corpus import documents
from llama_bench.measure.text.tokenizer import Encoder
from llama_bench.specs import Corpus

ODD = [
    " don't  'tis\n\n\n  we'll 've_x 3rd 42nd\t\tx \n",
    "\x0b\x0c \x1c\x1d\x1e\x1f \r\n\r x\u0085y\u00a0z \u2003 w",
    "naïve  café's – “quoted” ½ Ⅷ 三 ٣ 😀👩\u200d🚀 'ſt ꙮ\n 中文 混 text\u3000全角",
    "a \u00a0b\u200b c é d\né\n\n é  é",
    "",
    "   ",
    "<|bos|> as text",
]


@pytest.fixture(scope="module")
def code():
    return [d.text.encode() for d in documents(Corpus(source="python-stdlib"), []) if d]


@pytest.fixture(scope="module")
def encoder(code, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(code[::100], 600, folder)
    return Encoder(folder)


def theirs(encoder, text):
    return encoder.tokenizer.encode(text.decode(), add_special_tokens=False).ids


def ours(encoder, text):
    return np.frombuffer(encoder.pack([text]), dtype=encoder.dtype)[1:].tolist()


def test_words_one_by_one_give_what_the_library_gives(encoder, code, monkeypatch):
    assert encoder.by_words
    foreign = [text for text in code if not text.isascii()][::6]
    for text in [*code[::40], *foreign, *(text.encode() for text in ODD)]:
        assert ours(encoder, text) == theirs(encoder, text)
    monkeypatch.setattr(tokenizer, "AT_ONCE_BYTES", 10)
    monkeypatch.setattr(tokenizer, "REMEMBERED_BYTES", 100)
    for text in [code[50], foreign[0], *(text.encode() for text in ODD)]:
        assert ours(encoder, text) == theirs(encoder, text)


def test_any_characters_in_any_order_give_what_the_library_gives(encoder):
    rng = np.random.Generator(np.random.PCG64(0))
    alphabet = [*"ab1_'. \n\t\r'sdtméß中😀½\u00a0\u2028\u0085\u200b\x1c\x0b", "  ", " '"]
    for _ in range(300):
        text = "".join(rng.choice(alphabet, 60)).encode()
        assert ours(encoder, text) == theirs(encoder, text), text


def test_every_byte_is_counted(encoder, code):
    lengths = encoder.token_bytes()
    for text in [*code[::200], *(text.encode() for text in ODD)]:
        assert lengths[ours(encoder, text)].sum() == len(text)
    assert lengths[encoder.bos] == 0
    assert encoder.loss_of([text.encode() for text in ODD]) is None


def save(folder, normalizer, config=None):
    """A word-level BPE with a normalizer, as some Hub tokenizers have."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["Some Words"] * 9, trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>"} if config is None else config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("normalizer", "text", "reason"),
    [
        (normalizers.Lowercase(), "Some Words", "do not decode"),
        (normalizers.StripAccents(), "cafe\u0301", "do not add up"),
        (normalizers.Strip(), "ends in blanks  ", "do not add up"),
        (normalizers.NFC(), "Some Words", None),
    ],
)
def test_text_that_a_normalizer_loses_is_noticed(tmp_path, normalizer, text, reason):
    found = Encoder(save(tmp_path, normalizer)).loss_of([b"some words", text.encode()])
    assert reason in found if reason else found is None


def test_bos_else_eos_else_an_error(tmp_path):
    nothing = normalizers.NFC()
    assert Encoder(save(tmp_path, nothing)).bos == 0
    assert Encoder(save(tmp_path, nothing, {"eos_token": {"content": "</s>"}})).bos == 1
    assert Encoder(save(tmp_path, nothing, {"bos_token": None, "eos_token": "</s>"})).bos == 1
    with pytest.raises(UserError, match="neither a bos_token nor an eos_token"):
        Encoder(save(tmp_path, nothing, {}))


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: is no tokenizer"):
        Encoder(tmp_path)
