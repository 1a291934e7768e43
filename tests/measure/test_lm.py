"""The adapter: a model's own numbers, whatever the batch, the tokenizer or the neighbours."""

import json
import math
import subprocess
import sys

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_llama import CONTEXT, adapter, checkpoint

from llama_bench.measure.evaluation import generation
from llama_bench.measure.evaluation.generation import merged
from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.measure.evaluation.lm import PASS, WRITTEN, CausalLM
from llama_bench.records import Refusal


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture(params=["drawn", "stories260K"])
def model_folder(request, local, shared):
    """A model that is drawn, and a real one, whose window is as long."""
    return local if request.param == "drawn" else shared("models", request.param)


@pytest.fixture(scope="module")
def lm(local):
    return adapter(local)


def ask(kind, *arguments, task="t", docs=None):
    docs = docs or range(len(arguments))
    return [
        Instance(kind, {}, args, index, metadata=(task, doc, 1))
        for index, (args, doc) in enumerate(zip(arguments, docs, strict=True))
    ]


def by_hand(lm, ids, start):
    """Log-likelihood and greediness of ids[start:] from one unpadded pass."""
    with torch.no_grad():
        table = torch.log_softmax(lm.model(torch.tensor([ids[:-1]])).logits[0].double(), dim=-1)
    wanted = torch.tensor(ids[start:])
    rows = table[start - 1 :]
    return (
        rows.gather(1, wanted[:, None]).sum().item(),
        bool((rows.argmax(-1) == wanted).all()),
    )


PAIRS = [
    ("def main(", "self):"),
    ("def main(", "args=None, *, verbose=False):"),
    ("def main(", ")"),
    ("import os\nimport ", "sys"),
    ("", "class Reader:\n    pass\n"),
    ("for line in lines:\n    print(", "line)\n"),
]


def test_likelihoods_do_not_depend_on_what_else_is_asked(lm):
    together = lm.loglikelihood(ask("loglikelihood", *PAIRS, docs=[0, 0, 0, 1, 2, 3]))
    for pair, answer in zip(PAIRS, together, strict=True):
        (alone,) = lm.loglikelihood(ask("loglikelihood", pair))
        (cut,) = lm.encoding.pairs([pair])
        total, greedy = by_hand(lm, cut.ids, cut.start)
        assert answer[0] == pytest.approx(total, abs=1e-3)
        assert alone[0] == pytest.approx(total, abs=1e-3)
        assert answer[1] == alone[1] == greedy


def test_greedy_answer_is_told_from_another(lm):
    ids = lm.encoding.encode("import ")
    with torch.no_grad():
        best = lm.model(torch.tensor([ids])).logits[0, -1].argsort(descending=True)
    for rank, greedy in ((0, True), (1, False)):
        whole = [*ids, best[rank].item()]
        assert by_hand(lm, whole, len(ids))[1] is greedy
        assert [answer[2] for answer in lm.score([(0, whole, len(ids))])] == [greedy]


def test_our_contexts_begin_with_one_bos(lm):
    bos = lm.tokenizer.bos_token_id
    for text in ("", "import os", "<|bos|>import os"):
        ids = lm.encoding.encode(text)
        assert ids[0] == bos and ids.count(bos) == 1


def test_agrees_with_lm_evals_own_adapter_on_a_tokenizer_that_adds_bos(shared):
    folder = shared("models", "stories260K")
    ours = adapter(folder)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=4)
    stem = "Once upon a time, there was a little girl named"
    pairs = [(stem, " Lily."), (stem, " Tom."), ("The dog was very", " happy"), ("", "One day")]
    requests = ask("loglikelihood", *pairs, docs=[0, 0, 1, 2])
    for mine, other in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True
    ):
        assert mine == (pytest.approx(other[0], abs=1e-3), other[1])
    assert ours.encoding.encode(stem).count(ours.tokenizer.bos_token_id) == 1
    prompts = ask("generate_until", (stem, {"until": ["."], "max_gen_toks": 20}))
    (text,), (other,) = ours.generate_until(prompts), theirs.generate_until(prompts)
    assert text.lstrip() == other == "Lily"  # theirs drops the blank, see below


def test_rolling_likelihood_charges_no_bos(shared):
    ours = adapter(shared("models", "stories260K"))
    text = "Once upon a time, there was a little girl named Lily. " * 40
    ids = ours.encoding.encode(text)
    assert len(ids) > ours.window + 1
    (rolling,) = ours.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    first = by_hand(ours, ids[: ours.window + 1], 1)[0]
    rest = ids[ours.window + 1 :]
    last = by_hand(ours, ids[-ours.window - 1 :], ours.window + 1 - len(rest))[0]
    assert len(ids) - 1 <= 2 * ours.window
    assert rolling == pytest.approx(first + last, rel=1e-5)


def test_a_token_across_the_border_is_scored_whole(lm):
    """Where the context's last letters and the answer are one token, that token is the answer."""
    words = (w for w in sorted(lm.tokenizer.get_vocab()) if len(w) >= 4 and w.isascii())
    word = next(word for word in words if len(lm.encoding.encode(word)) == 2 and word.isalpha())
    ((total, _),) = lm.loglikelihood(ask("loglikelihood", (word[:2], word[2:])))
    assert total == pytest.approx(by_hand(lm, lm.encoding.encode(word), 1)[0], abs=1e-3)
    assert not lm.remarks.reasons


def test_one_request_that_cannot_be_scored_leaves_the_others(model_folder):
    lm = adapter(model_folder)
    endless = " value" * CONTEXT
    answers = lm.loglikelihood(
        ask("loglikelihood", ("import os", ""), ("import ", "sys"), ("import ", endless), task="x")
    )
    assert answers[0] == answers[2] == (-math.inf, False)
    alone = adapter(model_folder).loglikelihood(ask("loglikelihood", ("import ", "sys")))
    assert answers[1] == alone[0]
    assert lm.remarks.counts["unscored"] == {"x": 2}
    reasons = {doc: reason for (_, doc, _), reason in lm.remarks.reasons.items()}
    assert "nothing" in reasons[0] and f"window {CONTEXT}" in reasons[2]


CRAMPED = """
import json, resource, sys
import torch
from llama_bench.measure.evaluation import lm as adapters
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

class Counting(adapters.CausalLM):
    passes, fitted = 0, 0

    def _pass(self, stem, batch):
        type(self).passes += 1
        answers = super()._pass(stem, batch)
        type(self).fitted += 1
        return answers

adapters.PASS["cpu"] = (2**20, 2**20, 2**40)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
lm = Counting(model, AutoTokenizer.from_pretrained(sys.argv[1]))
texts = [f"x{n} = {n}\\n" * 50 for n in range(40)]
kind = "loglikelihood_rolling"
asked = [Instance(kind, {}, (t,), 0, metadata=("t", n, 1)) for n, t in enumerate(texts)]
lm.loglikelihood_rolling(asked[:1])
passes = lm.passes
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 24 * 2**20, resource.RLIM_INFINITY))
answers = lm.loglikelihood_rolling(asked)
print(json.dumps([answers, lm.passes - passes, lm.fitted - passes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own limit is Linux's")
def test_a_pass_that_does_not_fit_is_halved_and_nothing_is_lost(model_folder):
    """The kernel refuses memory to a process of its own; all requests are answered all the same."""
    command = [sys.executable, "-c", CRAMPED, str(model_folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    answers, passes, fitted = json.loads(done.stdout.splitlines()[-1])
    assert passes > fitted > 1  # it would be one pass
    texts = [(f"x{n} = {n}\n" * 50,) for n in range(40)]
    free = adapter(model_folder).loglikelihood_rolling(ask("loglikelihood_rolling", *texts))
    assert answers == pytest.approx(free, rel=1e-5)


def test_a_batch_of_ones_own_bounds_every_pass_and_gives_the_same(lm, local, monkeypatch):
    passes, taken = [], CausalLM._pass
    monkeypatch.setattr(
        CausalLM, "_pass", lambda self, *given: passes.append(len(given[1])) or taken(self, *given)
    )
    asked = ask("loglikelihood", *PAIRS)
    together = [value for value, _ in lm.loglikelihood(asked)]
    assert max(passes) > 1
    passes.clear()
    bound = adapter(local)
    bound.most_rows = 1
    assert [value for value, _ in bound.loglikelihood(asked)] == pytest.approx(together, rel=1e-5)
    assert set(passes) == {1}
    assert [len(part) for part in bound.prompt_batches([0, 1], [[1, 2], [1, 2]], 4)] == [1, 1]


def test_what_is_written_together_is_bound_by_the_keys_and_values_that_it_will_have(lm):
    (tokens, *_), held = lm._room, WRITTEN["cpu"]
    prompts, every = [[3] * 24] * 4_000, list(range(4_000))
    for new in (8, 1_000, held):
        parts = list(lm.prompt_batches(every, prompts, new))
        assert [number for part in parts for number in part] == every
        most = max(map(len, parts))
        assert most * (24 + new) <= held or most == 1
        assert most == max(1, min(8 * tokens // 24, held // (24 + new)))


def test_the_output_head_sees_a_few_places_at_once_and_gives_the_same(local, monkeypatch):
    """One window of 500 tokens, and choices behind a stem, by 16 places a time."""
    text = "".join(f"x{n} = {n}\n" for n in range(200))
    stem = "".join(f"line {n}\n" for n in range(60))
    pairs = [(stem + f"print({n}, ", f"{n} + value)\n" * 9) for n in range(40)]
    whole = adapter(local)
    expected = whole.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    chosen = whole.loglikelihood(ask("loglikelihood", *pairs))
    few, seen = adapter(local), []
    monkeypatch.setitem(PASS, "cpu", (512, 8192, 16 * len(few.tokenizer)))
    head = few.model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, out: seen.append(out.flatten(0, -2).shape[0]))
    passed = []
    few.model.model.layers[0].register_forward_hook(lambda *given: passed.append(1))
    found = few.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    assert found == pytest.approx(expected, rel=1e-6)
    assert max(seen) <= 16 < len(whole.encoding.encode(text)) == sum(seen) + 1
    assert len(passed) == math.ceil(sum(seen) / few.window)  # the layers once a window
    for mine, other in zip(few.loglikelihood(ask("loglikelihood", *pairs)), chosen, strict=True):
        assert mine == (pytest.approx(other[0], rel=1e-6), other[1])


def test_work_that_fails_for_another_reason_is_not_repeated():
    tried = []

    def work(items):
        tried.append(len(items))
        raise ValueError("nothing to do with memory")

    with pytest.raises(ValueError, match="nothing to do"):
        in_halves(work, [1, 2, 3])
    assert tried == [3]


def test_a_tokenizer_without_a_pad_token_is_padded_all_the_same(model_folder):
    lm = adapter(model_folder)
    lm.tokenizer.pad_token = None
    assert lm.tokenizer.pad_token_id is None
    settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": 6}
    prompts = ["import ", "for line in lines:\n    print("]
    together = lm.generate_until(ask("generate_until", *((p, settings) for p in prompts)))
    alone = [lm.generate_until(ask("generate_until", (p, settings)))[0] for p in prompts]
    assert together == alone


def test_settings_of_generation_replace_the_tasks_own(local):
    lm = adapter(local)
    lm.settings = {"max_gen_toks": 3, "until": []}
    asked = {"until": ["x"], "do_sample": False, "max_gen_toks": 40}
    (text,) = lm.generate_until(ask("generate_until", ("import ", asked)))
    prompt = lm.encoding.encode("import ")
    with torch.no_grad():
        out = lm.model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)
    assert text == lm.tokenizer.decode(out[0], skip_special_tokens=True)[len("import ") :]


PROMPTS = ("import ", "for line in lines:\n    print(", "def")


def as_lm_evals_own(ours, settings):
    """Texts of ours and of lm-eval's own adapter."""
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=1)
    asked = [(prompt, settings) for prompt in PROMPTS]
    ours.encoding.bos = "stock"
    found = ours.generate_until(ask("generate_until", *asked))
    return found, theirs.generate_until(ask("generate_until", *asked))


@pytest.mark.parametrize(
    "settings",
    [
        {"until": ["\n\n"], "max_gen_toks": 12, "num_beams": 3},
        {"max_new_tokens": 12, "repetition_penalty": 1.8, "temperature": 0.0},
        {"until": "e", "max_gen_toks": 12, "do_sample": False, "no_repeat_ngram_size": 1},
    ],
)
def test_settings_do_what_they_do_in_lm_evals_own_adapter(local, settings):
    ours = adapter(local)
    found, expected = as_lm_evals_own(ours, settings)
    assert found == expected
    plain = {"until": settings.get("until", []), "max_gen_toks": 12}
    assert found != as_lm_evals_own(ours, plain)[0]


def test_own_settings_go_before_the_tasks_in_whichever_spelling():
    task = {"until": ["x"], "max_gen_toks": 40, "do_sample": False, "temperature": 0.0}
    assert merged(task, {}) == {"until": ["x"], "max_gen_toks": 40, "do_sample": False}
    assert merged(task, {"max_new_tokens": 16})["max_gen_toks"] == 16
    assert merged({"max_tokens": 9}, {"max_gen_toks": 16})["max_gen_toks"] == 16
    drawn = merged(task, {"temperature": 0.7, "top_k": 5})
    assert (drawn["do_sample"], drawn["temperature"], drawn["top_k"]) == (True, 0.7, 5)
    assert merged(task, {"do_sample": True})["temperature"] == 1.0
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "num_beams": 2}
    greedy = {"until": [], "max_gen_toks": 256, "do_sample": False, "num_beams": 2}
    assert merged(sampling, {"temperature": 0}) == merged(sampling, {"do_sample": False}) == greedy
    with pytest.raises(ValueError, match="max_length counts the prompt"):
        merged({"max_length": 100}, {})


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"num_beams": 2}])
def test_a_model_that_gives_no_numbers_writes_nothing(model_folder, settings):
    """Finite weights whose logits are NaN: an infinite norm times zero."""
    lm = adapter(model_folder)
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(3e38)
    with pytest.raises(Refusal, match="not finite") as caught:
        lm.generate_until(ask("generate_until", ("import ", {"max_gen_toks": 4} | settings)))
    assert caught.value.status == "non-finite"
    with pytest.raises(Refusal, match="not finite"):
        generation.samples(lm, ("import ",), 4, seed=0)


def test_a_prompt_without_a_token_begins_as_a_text_does(local):
    """A tokenizer without BOS makes nothing of an empty prompt."""
    lm = adapter(local)
    lm.tokenizer.bos_token = None
    assert lm.encoding.encode("") == []
    settings = {"max_gen_toks": 4, "min_new_tokens": 4}
    found = lm.generate_until(ask("generate_until", ("", settings), ("", settings)))
    begun, length = torch.tensor([[lm.encoding.start]]), {"max_new_tokens": 4, "min_new_tokens": 4}
    with torch.no_grad():
        out = lm.model.generate(begun, do_sample=False, **length)
    assert found == [lm.tokenizer.decode(out[0], skip_special_tokens=True)] * 2 != ["", ""]
    rows = generation.samples(lm, ("", "import "), 4, seed=0)
    assert [row["prompt"] for row in rows] == ["", "import"] * 2


TEMPLATE = """{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}
{%- endif %}<{{ m.role }}>{{ m.content }}{% endfor %}
{%- if add_generation_prompt %}<model>{% endif %}"""


def test_prompts_take_the_form_of_the_models_own_template(local):
    lm = adapter(local)
    with pytest.raises(Refusal, match="no chat template"):
        lm.apply_chat_template([{"role": "user", "content": "hello"}])
    lm.tokenizer.chat_template = TEMPLATE
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert lm.apply_chat_template(talk) == "<user>be brief\n\nhello<model>"


def test_a_long_context_loses_its_beginning(model_folder):
    lm = adapter(model_folder)
    context = "".join(f"line {n}\n" for n in range(CONTEXT))
    whole, stem = lm.encoding.encode(context + "end"), lm.encoding.encode(context.rstrip())
    ((total, _),) = lm.loglikelihood(ask("loglikelihood", (context, "end")))
    kept = whole[-CONTEXT - 1 :]
    scored = len(whole) - len(stem)
    assert total == pytest.approx(by_hand(lm, kept, len(kept) - scored)[0], abs=1e-3)
    assert lm.remarks.counts["truncated"] == {"t": 1}


def test_answers_are_as_long_as_in_lm_evals_own_adapter_and_cuts_are_counted(shared):
    """More than half of the window, after a prompt that fits beside it and one that does not."""
    ours = adapter(shared("models", "stories3M"))
    ours.encoding.bos = "stock"
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=1)
    story = "Once upon a time, there was a little girl named Lily. "
    settings = {"until": ["never"], "max_gen_toks": 300, "min_new_tokens": 260}
    asked = ask("generate_until", (story, settings), (story * 20, settings))
    found = ours.generate_until(asked)
    assert found == theirs.generate_until(asked)
    lengths = [len(ours.tokenizer.encode(text, add_special_tokens=False)) for text in found]
    assert ours.window == 512 and min(lengths) > 256
    assert ours.remarks.counts["truncated"] == {"t": 1}
    # lm-eval's own refuses what the window does not hold; here the answer is cut
    beyond = {"until": ["never"], "max_gen_toks": 512, "min_new_tokens": 256}
    short = {"until": ["Lily"], "max_gen_toks": 512}
    ours.remarks.counts.clear()
    ours.generate_until(ask("generate_until", (story, beyond), (story, short)))
    assert ours.remarks.counts["truncated"] == {"t": 1}


def test_a_prompt_loses_no_more_than_it_must_where_a_task_wants_it_whole(local):
    """The rest of the window is the answer's, an eighth of it at least."""
    lm = adapter(local)
    ids = lm.encoding.encode("".join(f"line {n}\n" for n in range(CONTEXT)))
    settings = {"until": [], "do_sample": False, "max_gen_toks": 400, "min_new_tokens": 4}
    asked = [(lm.tokenizer.decode(ids[1:length]), settings) for length in (40, 480, 300, 460)]
    lengths = [len(lm.encoding.encode(prompt)) for prompt, _ in asked]
    lm.generate_until(ask("generate_until", *asked))
    assert lm.remarks.counts.pop("truncated") == {"t": 3}, "400 tokens are the answer's"
    lm.whole_prompts = True
    found = lm.generate_until(ask("generate_until", *asked))
    assert lm.remarks.counts["truncated"] == {"t": 3}, "two prompts, and the answer of 212 tokens"
    for (prompt, _), length, text in zip(asked, lengths, found, strict=True):
        new = min(400, max(CONTEXT - length, CONTEXT // 8))
        kept = lm.encoding.encode(prompt)[-(CONTEXT - new) :]
        with torch.no_grad():
            out = lm.model.generate(
                torch.tensor([kept]), max_new_tokens=new, min_new_tokens=4, do_sample=False
            )[0]
        wanted = lm.tokenizer.decode(out, skip_special_tokens=True)
        assert text == wanted[len(lm.tokenizer.decode(kept, skip_special_tokens=True)) :]
    lm.encoding.bos = "stock"
    lm.remarks.counts.clear()
    lm.generate_until(ask("generate_until", *asked))
    assert lm.remarks.counts["truncated"] == {"t": 3}, "as lm-eval cuts them"


def test_generated_text_is_the_greedy_one_whatever_the_batch(lm):
    prompts = ["import ", "for line in lines:\n    print(", "def", "class Reader(object"]
    settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": 12}
    together = lm.generate_until(ask("generate_until", *((p, settings) for p in prompts)))
    for prompt, text in zip(prompts, together, strict=True):
        ids = lm.encoding.encode(prompt)
        given = len(ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(lm.model(torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] == lm.tokenizer.eos_token_id:
                break
        expected = lm.tokenizer.decode(ids, skip_special_tokens=True)
        assert text == expected[len(prompt) :].split("\n")[0], (prompt, ids[given:])


def test_stop_string_ends_the_text_and_the_work(lm):
    free = lm.generate_until(ask("generate_until", ("import ", {"until": [], "max_gen_toks": 8})))
    stop = free[0][2:4]
    settings = {"until": [stop], "max_gen_toks": 8}
    (text,) = lm.generate_until(ask("generate_until", ("import ", settings)))
    assert text == free[0].split(stop)[0]


def test_blank_before_a_generated_word_is_kept(shared):
    """SentencePiece's decoder drops the first blank of what it is given."""
    lm = adapter(shared("models", "stories260K"))
    settings = {"until": ["."], "max_gen_toks": 12}
    (text,) = lm.generate_until(ask("generate_until", ("Once upon", settings)))
    assert text.startswith(" a time")


def test_samples_are_the_same_again_and_differ_by_seed(lm):
    once = generation.samples(lm, ("import ", "def main("), 10, seed=3)
    assert once == generation.samples(lm, ("import ", "def main("), 10, seed=3)
    assert once != generation.samples(lm, ("import ", "def main("), 10, seed=4)
    assert [row["decoding"] for row in once] == ["greedy"] * 2 + ["temperature 0.8"] * 2
    assert all(row["text"] for row in once)
