"""Fusing real models: what must come out to the bit, what a mean of relatives and of strangers is
worth, and what is refused before anything is computed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import spec_of
from transformers import AutoModelForCausalLM

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import fuse, held_out_loss
from llama_bench.measure.fusing import with_mergekit
from llama_bench.measure.fusing.judge import ask
from llama_bench.measure.fusing.members import members_of
from llama_bench.measure.job import carry_out
from llama_bench.sources import file_digest
from llama_bench.specs import Corpus, ExamplesSpec, FinetuneSpec, FuseSpec, Member, Pretrained

TRAININGS = {
    "branch": dict(cooldown_seed=1),
    "its sister": dict(cooldown_seed=2),
    "a stranger": dict(seed=1),
}


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> dict[str, Path]:
    """Records of two branches of one trunk that read other text, and of another seed."""
    folder, found = tmp_path_factory.mktemp("train"), {}
    for name, fields in TRAININGS.items():
        spec = spec_of(prepared, tokens=120_000, learning_rate=5e-3, decay_share=0.4, **fields)
        path = folder / spec.id / "record.json"
        carry_out("train", spec.canonical(), path, [prepared, *found.values()][:2])
        found[name] = path
    assert records.read(found["its sister"]).result["continued_from"] == found["branch"].parent.name
    return found


def asked(prepared, members: list[Path], **fields) -> FuseSpec:
    named = tuple(
        Member(verb="train", run=path.parent.name)
        if path.name == "record.json"
        else Member(pretrained=Pretrained(digest=path.name))
        for path in members
    )
    return FuseSpec(members=named, data=prepared.parent.name, **fields)


def fused(prepared, members: list[Path], folder: Path, **fields) -> records.Record:
    spec = asked(prepared, members, **fields)
    output = folder / spec.id / "record.json"
    carry_out("fuse", spec.canonical(), output, [prepared, *members])
    return records.read(output)


def checkpoint(record: records.Record, folder: Path) -> Path:
    return folder / record.id / "checkpoint"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def relatives(prepared, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuse")
    members = [trained["branch"], trained["its sister"]]
    return fused(prepared, members, folder, method="uniform", line=5, growing=True), folder


def test_the_first_members_weight_alone_is_the_first_member(prepared, trained, tmp_path):
    members = list(trained.values())
    record = fused(
        prepared, members, tmp_path, method="given", weights=(1, 0, 0), allow_unrelated=True
    )
    made, first = checkpoint(record, tmp_path), members[0].parent / "checkpoint"
    assert sorted(p.name for p in made.iterdir()) == sorted(p.name for p in first.iterdir())
    for path in first.iterdir():
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name
    assert abs(record.result["loss"] - record.result["members"][0]["loss"]) < 1e-5


def test_copies_give_themselves(prepared, trained, tmp_path):
    copies = [trained["branch"]] * 3
    for fields in (dict(method="uniform"), dict(method="given", weights=(0.3, 0.3, 0.4))):
        record = fused(prepared, copies, tmp_path, **fields)
        expected = weights(copies[0].parent / "checkpoint")
        assert weights(checkpoint(record, tmp_path)) == expected
        assert record.result["gain"] == 0


def test_the_mean_is_a_model_of_anybodys(relatives, trained):
    record, folder = relatives
    made = AutoModelForCausalLM.from_pretrained(checkpoint(record, folder)).state_dict()
    pair = [
        load_file(trained[name].parent / "checkpoint" / "model.safetensors") for name in trained
    ]
    for name in pair[0]:
        mean = (pair[0][name].double() + pair[1][name].double()) / 2
        assert torch.allclose(made[name].double(), mean, rtol=1e-6, atol=1e-7), name


def test_lm_eval_loads_it(relatives):
    """Its own model gives a text the likelihood that transformers' logits do."""
    from lm_eval.models.huggingface import HFLM

    record, folder = relatives
    lm = HFLM(pretrained=str(checkpoint(record, folder)), device="cpu", dtype="float32")
    context, more = [0, 300, 301], [302, 303]
    ((found, _),) = lm._loglikelihood_tokens([(("", ""), context, more)], disable_tqdm=True)
    ids = torch.tensor([[*context, *more]])
    with torch.no_grad():
        told = lm.model(ids).logits[0, 2:4].double().log_softmax(-1)
    assert found == pytest.approx(told[0, 302].item() + told[1, 303].item(), abs=1e-5)


def test_members_losses_are_those_of_their_trainings(prepared, relatives, trained):
    """Taken from the record, and the same when they are measured again."""
    result = relatives[0].result
    for row, name in zip(result["members"], trained, strict=False):
        told = records.read(trained[name]).result["loss"]
        assert row["loss"] == pytest.approx(told, abs=1e-6)
        loaded = AutoModelForCausalLM.from_pretrained(trained[name].parent / "checkpoint")
        windows = held_out_loss.windows_of(prepared.parent, 64).judging
        assert held_out_loss.losses(loaded, windows).mean() == pytest.approx(told, abs=1e-5)
    best = min(row["loss"] for row in result["members"])
    assert result["gain"] == pytest.approx(best - result["loss"], abs=1e-6)
    assert result["validation_tokens"] == windows[:, 1:].size


def test_relatives_may_be_averaged_and_strangers_not(prepared, relatives, trained, tmp_path):
    """The straight line between two branches of a trunk has no mountain; between seeds it has."""
    near = relatives[0].result
    strangers = [trained["branch"], trained["a stranger"]]
    refused = fused(prepared, strangers, tmp_path / "refused", method="uniform")
    assert refused.status == "refused"
    assert "allow_unrelated: true" in refused.reason
    far = fused(
        prepared, strangers, tmp_path, method="uniform", line=5, allow_unrelated=True
    ).result
    assert (near["related"], far["related"]) == (True, False)
    assert near["gain"] > 2 * near["gain_standard_error"]
    assert far["gain"] < -0.5
    assert near["barrier"] < 0.01 < 0.5 < far["barrier"]
    assert len(near["ancestors"]) == 2 and near["ancestors"][0].startswith("trunk-")
    assert far["ancestors"] == [far_id(tmp_path)]


def far_id(folder: Path) -> str:
    return next(folder.glob("uniform-*")).name


def test_the_line_and_the_growing_mean_meet_the_mean(relatives):
    result = relatives[0].result
    line, growing = result["line"], result["growing"]
    assert [row["share"] for row in line] == [0, 0.25, 0.5, 0.75, 1]
    assert line[2]["loss"] == result["loss"] == growing[1]["loss"]
    assert line[0]["loss"] == growing[0]["loss"] == result["members"][0]["loss"]
    assert line[4]["loss"] == result["members"][1]["loss"]
    rises = [
        row["loss"] - (1 - row["share"]) * line[0]["loss"] - row["share"] * line[4]["loss"]
        for row in line
    ]
    assert result["barrier"] == pytest.approx(max(rises), abs=1e-12)


def test_a_soup_leaves_out_who_harms_it(prepared, trained, tmp_path):
    members = [trained["a stranger"], trained["branch"], trained["its sister"]]
    result = fused(prepared, members, tmp_path, method="greedy", allow_unrelated=True).result
    losses = [row["choosing_loss"] for row in result["members"]]
    assert result["joined"][0] == int(np.argmin(losses))
    joined = set(result["joined"])
    assert joined == {1, 2}, "sisters help each other, a stranger helps nobody"
    expected = [1 / len(joined) if place in joined else 0 for place in range(3)]
    soup, best = result["loss"], min(row["loss"] for row in result["members"])
    assert soup < best
    assert [row["weight"] for row in result["members"]] == expected


def test_softmax_weighs_by_loss(prepared, trained, tmp_path):
    members = [trained["branch"], trained["its sister"]]
    record = fused(prepared, members, tmp_path, method="softmax", temperature=0.01)
    rows = record.result["members"]
    powers = [math.exp(-row["choosing_loss"] / 0.01) for row in rows]
    for row, power in zip(rows, powers, strict=True):
        assert row["weight"] == pytest.approx(power / sum(powers), rel=1e-6)
    assert record.result["temperature"] == 0.01


def test_an_ensemble_is_fused_from_strangers(prepared, trained, tmp_path):
    """The loss of a mixture follows from its members' losses token by token."""
    members = [trained["branch"], trained["a stranger"]]
    record = fused(prepared, members, tmp_path, method="mixture", growing=True)
    result = record.result
    windows = held_out_loss.windows_of(prepared.parent, 64).judging
    nats = [
        held_out_loss.losses(
            AutoModelForCausalLM.from_pretrained(path.parent / "checkpoint"), windows
        )
        for path in members
    ]
    expected = -np.log((np.exp(-nats[0]) + np.exp(-nats[1])) / 2).mean()
    assert result["loss"] == pytest.approx(expected, abs=1e-6)
    assert [row["members"] for row in result["growing"]] == [1, 2]
    assert result["growing"][0]["loss"] == pytest.approx(nats[0].mean(), abs=1e-6)
    assert result["growing"][1]["loss"] == pytest.approx(expected, abs=1e-6)
    assert result["gain"] > 0, "two guesses are better than one"
    one = records.read(members[0]).result["parameters"]["all"]
    assert result["parameters"]["all"] == 2 * one


def test_what_more_members_bring_is_a_mean_over_sets(prepared, trained, tmp_path):
    """Of weights and of outputs; a mixture's sets follow from its members' own losses."""
    members = list(trained.values())
    how = dict(growing=True, draws=6)
    whole = fused(prepared, members, tmp_path, method="mixture", **how).result
    assert [row["sets"] for row in whole["growing"]] == [3, 3, 1]
    windows = held_out_loss.windows_of(prepared.parent, 64).judging
    nats = [ask(path.parent / "checkpoint", windows) for path in members]
    pairs = [-np.log((np.exp(-nats[a]) + np.exp(-nats[b])) / 2) for a, b in PAIRS]
    singles, two, all_ = (row["loss"] for row in whole["growing"])
    assert singles == pytest.approx(np.mean(nats), abs=1e-6)
    assert two == pytest.approx(np.mean(pairs), abs=1e-6)
    assert all_ == pytest.approx(whole["loss"], abs=1e-6)
    mean = fused(prepared, members, tmp_path, method="uniform", allow_unrelated=True, **how).result
    turned = [members[place] for place in (2, 0, 1)]
    other = fused(prepared, turned, tmp_path, method="uniform", allow_unrelated=True, **how).result
    for row, same in zip(mean["growing"], other["growing"], strict=True):
        assert row["loss"] == pytest.approx(same["loss"], abs=1e-5), "whatever their order"
    assert mean["growing"][2]["loss"] == mean["loss"]


PAIRS = ((0, 1), (0, 2), (1, 2))


def test_a_control_is_judged_on_the_same_windows(prepared, relatives, trained, tmp_path):
    members = [trained["branch"], trained["its sister"]]
    named = Member(verb="train", run=trained["a stranger"].parent.name)
    spec = asked(prepared, members, method="uniform", control=named)
    output = tmp_path / spec.id / "record.json"
    carry_out("fuse", spec.canonical(), output, [prepared, *members, trained["a stranger"]])
    result = records.read(output).result
    control, own = result["control"], records.read(trained["a stranger"]).result["loss"]
    assert control["loss"] == pytest.approx(own, abs=1e-5)
    best = min(row["loss"] for row in result["members"])
    assert control["gain"] == pytest.approx(best - own, abs=1e-5)
    assert control["gain_standard_error"] > 0 and result["related"]
    assert result["loss"] == relatives[0].result["loss"]
    assert relatives[0].result["control"] is None


def labelled_lines(prepared: Path, folder: Path) -> Path:
    """The record of examples: whether a line of real Python is a class or an import."""
    lines = (Path(os.__file__).parent / "typing.py").read_text().splitlines()
    found = {line: line.split()[0] for line in lines if line.startswith(("class ", "import "))}
    found |= {f"import {name}": "import" for name in sorted(sys.stdlib_module_names)[:60]}
    rows = folder / "lines.jsonl"
    told = [{"line": line.partition(" ")[2], "kind": kind} for line, kind in found.items()]
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    spec = ExamplesSpec(
        **dict(task="finetune_kind", data=prepared.parent.name, choices=True),
        **dict(prompt="{line}\n#", answer=" {kind}", items=200, validation=0.2, test=0.3),
        corpus=Corpus(source="files", files=(file_digest(rows),)),
    )
    path = folder / spec.id / "record.json"
    carry_out("examples", spec.canonical(), path, [prepared, rows])
    return path


def test_fine_tunings_of_one_pretrained_base_are_fused(shared, prepared, tmp_path):
    """A real Llama, a few steps with two seeds: relatives, in its own tokens. Beside them one that
    was tuned twice, one after the other."""
    source = shared("models", "stories260K")
    labelled = labelled_lines(prepared, tmp_path)

    def tuned(base: Member, given: Path, seed: int) -> Path:
        spec = FinetuneSpec(
            **dict(base=base, data=prepared.parent.name, examples=labelled.parent.name, seed=seed),
            **dict(steps=4, validate_every=4, patience=1, batch=4, context=64),
            learning_rate=1e-3,
        )
        output = tmp_path / spec.id / "record.json"
        carry_out("finetune", spec.canonical(), output, [prepared, labelled, given])
        assert records.read(output).status == "ok", records.read(output).reason
        return output

    base = Member(pretrained=Pretrained(digest="stories"))
    members = [tuned(base, source, seed) for seed in (0, 1)]
    named = tuple(Member(verb="finetune", run=path.parent.name) for path in members)
    control = tuned(named[0], members[0], 2)
    spec = FuseSpec(
        members=named,
        **dict(data=prepared.parent.name, method="uniform"),
        control=Member(verb="finetune", run=control.parent.name),
    )
    output = tmp_path / spec.id / "record.json"
    carry_out("fuse", spec.canonical(), output, [prepared, *members, control])
    result = records.read(output).result
    assert result["related"] and result["ancestors"] == ["stories", spec.id]
    assert result["gain"] > -0.05 and result["bits_per_byte"] > 0
    best = min(row["loss"] for row in result["members"])
    assert result["control"]["gain"] == pytest.approx(best - result["control"]["loss"], abs=1e-6)


def test_mergekit_of_unlike_shapes_is_told_which_key_asks_for_one(shared, prepared, tmp_path):
    """The line between two members is on by default; mergekit itself may join unlike shapes."""
    source = shared("models", "stories260K")
    flat = changed(source, tmp_path / "flat", tie_word_embeddings=False)
    spec = asked(prepared, [source, flat], method="mergekit", configuration=CONFIGURATION, line=3)
    with pytest.raises(records.Refusal) as caught:
        fuse._refuse_misfits(spec, members_of(spec, [source, flat]), None)
    assert "give the fusion line: 0" in str(caught.value)


def test_a_fused_model_is_fused_again(prepared, relatives, trained, tmp_path):
    """Its ancestors are those that its members share, and it is one itself."""
    record, folder = relatives
    named = (
        Member(verb="fuse", run=record.id),
        Member(verb="train", run=trained["branch"].parent.name),
    )
    spec = FuseSpec(members=named, data=prepared.parent.name, method="slerp")
    output = tmp_path / spec.id / "record.json"
    inputs = [prepared, folder / record.id / "record.json", trained["branch"]]
    carry_out("fuse", spec.canonical(), output, inputs)
    again = records.read(output).result
    assert again["related"] and again["ancestors"] == [record.result["ancestors"][0], spec.id]
    assert again["origin"] == {"members": [record.id, trained["branch"].parent.name]}
    assert [row["weight"] for row in again["members"]] == [0.5, 0.5]
    assert math.isfinite(again["loss"])


KILLED = """
import os, signal, sys
from pathlib import Path
from llama_bench.measure.fusing import averaging
from llama_bench.measure.job import carry_out
read, calls = averaging.Blocks.read, []
def read_and_die(*given):
    calls.append(given)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*given)
averaging.Blocks.read = read_and_die
carry_out("fuse", sys.argv[1], Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
"""


def test_killed_half_way_it_leaves_no_model(prepared, relatives, trained, tmp_path):
    members = [trained["branch"], trained["its sister"]]
    spec = asked(prepared, members, method="uniform", line=5, growing=True)
    output = tmp_path / spec.id / "record.json"
    words = [spec.canonical(), str(output), str(prepared), *map(str, members)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    half = output.parent / ".checkpoint" / "model.safetensors"
    assert 0 < half.stat().st_size < len(weights(members[0].parent / "checkpoint"))
    assert not output.exists() and not (output.parent / "checkpoint").exists()
    carry_out("fuse", spec.canonical(), output, [prepared, *members])
    assert weights(output.parent / "checkpoint") == weights(checkpoint(*relatives))
    assert records.read(output).result["line"] == relatives[0].result["line"]
    assert not list(output.parent.glob(".[cm]*"))


def changed(source: Path, target: Path, **config) -> Path:
    shutil.copytree(source, target)
    content = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(content))
    return target


def test_a_pretrained_model_has_its_own_text_and_no_family(shared, prepared, tmp_path):
    """Real Llamas with a tokenizer that the study does not have: the held-out text is encoded anew,
    and two copies are relatives by their digest alone."""
    source = shared("models", "stories260K")
    copies = [source, source]
    record = fused(prepared, copies, tmp_path, method="uniform")
    assert record.status == "ok" and record.result["related"]
    assert weights(checkpoint(record, tmp_path)) == weights(source)
    assert record.result["members"][0]["pretrained"] == "stories260K"
    assert record.result["bits_per_byte"] > 0
    other = changed(source, tmp_path / "other")
    refused = fused(prepared, [source, other], tmp_path / "refused", method="uniform")
    assert refused.status == "refused" and "no common ancestor" in refused.reason


def test_inputs_that_do_not_fit_the_members_are_told(prepared, trained, tmp_path):
    spec = asked(prepared, [trained["branch"], trained["its sister"]], method="uniform")
    with pytest.raises(UserError, match="2 members have an input, but 1"):
        members_of(spec, [trained["branch"]])


CONFIGURATION = {
    "merge_method": "linear",
    "dtype": "float32",
    "models": [
        {"model": "member_1", "parameters": {"weight": 0.25}},
        {"model": "member_2", "parameters": {"weight": 0.75}},
    ],
}


def test_mergekit_names_members_by_their_place(prepared, trained):
    members = [trained["branch"], trained["its sister"]]
    spec = asked(prepared, members, method="mergekit", configuration=CONFIGURATION)
    filled = with_mergekit.with_paths(CONFIGURATION, members_of(spec, members))
    assert [row["model"] for row in filled["models"]] == [
        str(path.parent / "checkpoint") for path in members
    ]
    for name in ("member_3", "member_0", "gpt2"):
        wrong = {"models": [{"model": name}]}
        with pytest.raises(records.Refusal, match=f"'{name}' is none of the members"):
            with_mergekit.with_paths(wrong, members_of(spec, members))


def test_mergekit_itself(prepared, trained, tmp_path):
    """Its linear method is our mean; where it is not installed, that is said."""
    members = [trained["branch"], trained["its sister"]]
    record = fused(prepared, members, tmp_path, method="mergekit", configuration=CONFIGURATION)
    if record.status == "refused":
        assert "pip install 'llama-bench[mergekit]'" in record.reason
        pytest.skip("mergekit, an optional extra, is not installed")
    own = fused(prepared, members, tmp_path, method="given", weights=(0.25, 0.75))
    assert record.result["loss"] == pytest.approx(own.result["loss"], abs=1e-5)
    assert {row["weight"] for row in record.result["members"]} == {None}
