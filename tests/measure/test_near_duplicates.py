"""Sketches are the library's, and their groups those of similar texts."""

import numpy as np
import pytest
from datasketch import MinHash
from preparing import prose

from llama_bench.measure.text.near_duplicates import (
    PERMUTATIONS,
    SIMILAR,
    groups,
    minhash,
    sketches,
)


def grouped(texts):
    return groups(sketches([text.encode() for text in texts])).tolist()


def test_sketches_are_datasketchs():
    rng = np.random.Generator(np.random.PCG64(0))
    sets = [rng.integers(0, 2**32, size, dtype=np.uint32) for size in (1, 5, 700)]
    starts = np.cumsum([0, 1, 5])
    for ours, members in zip(minhash(np.concatenate(sets), starts), sets, strict=True):
        theirs = MinHash(PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
        theirs.update_batch(members.tolist())
        assert (ours == theirs.hashvalues).all()


def test_a_sketch_tells_the_similarity_of_texts():
    """Texts of 2,000 words of which every hundredth, or every tenth, is another one."""
    words = prose(1, words=1_000)[0].split()
    for every, unchanged in ((100, 0.95), (10, 0.5)):
        other = [f"other{n}" if n % every == 0 else word for n, word in enumerate(words)]
        first, second = sketches([" ".join(words).encode(), " ".join(other).encode()])
        exact = unchanged / (2 - unchanged)  # 5-grams kept, of those in either
        assert (first == second).mean() == pytest.approx(exact, abs=0.2)


def test_different_documents_are_not_grouped():
    assert grouped(prose(50)) == list(range(50))


def test_copies_are_grouped_with_the_first_and_chains_are_one_group():
    text = prose(1, words=400)[0].split()
    chain = [" ".join(text[10 * n : 10 * n + 300]) for n in range(11)]  # neighbours share 290
    ends = sketches([chain[0].encode(), chain[-1].encode()])
    assert (ends[0] == ends[1]).mean() < SIMILAR
    others = prose(3, seed=1)
    assert grouped([others[0], *chain, others[1], others[0], others[2]]) == [
        0, *[1] * 11, 12, 0, 14,
    ]  # fmt: skip


def test_blanks_and_invisible_characters_do_not_tell_documents_apart():
    text = prose(1)[0]
    same = [text, text.replace("\n", " \n\n"), text.replace("word", "wo\u200brd"), text + "\x07 \n"]
    assert grouped(same) == [0, 0, 0, 0]
    assert grouped(["--- ---\n", "---  --- \n\n", "***"]) == [0, 0, 2]


@pytest.mark.parametrize(
    "texts",
    [
        [
            "1 2 3 4 5 " + "Москва слезам не верит " * 9,
            "1 2 3 4 5 " + "Мой дядя самых честных " * 9,
        ],
        ["今天天气很好，我们去公园散步吧。" * 5, "昨天下雨了，他们在家里看书写字。" * 5],
    ],
)
def test_other_scripts_have_words_too(texts):
    assert grouped([*texts, texts[0] + " +"]) == [0, 1, 0]


def test_nothing_has_no_groups():
    assert grouped([]) == []
