"""What the report says of fused models: the gains that were put in, and nothing that was not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from finetuning_on_paper import Tunings
from fusion_on_paper import (
    CONTROL_GAIN,
    DESTROYED,
    ERROR,
    GAINS,
    MEMBERS,
    MERGED,
    SURE,
    answered,
    fuse,
    probe_ensemble,
    several,
    tuned,
)
from pages_on_paper import drawn, page, tabled
from study_on_paper import Paper, law, shape_of_size

from llama_bench.derive.tables import study_tables
from llama_bench.derive.words import finetune_table, fusion_table, fusions, fusiontext

TWO = {"50k": 50_000, "300k": 300_000}
ONE = {"50k": 50_000}
RUN = "uniform-of-4-50k-800000-soup"


def small(root, sizes=ONE) -> Paper:
    """A ladder of one budget."""
    paper = Paper(root, sizes=sizes, budgets=(800_000,))
    for label, size in sizes.items():
        paper.train(label, shape_of_size(size), 800_000, changed=SURE)
    return paper


def told(paper: Paper) -> dict[str, dict]:
    """The section's groups by name, each with its sentences as one text."""
    groups = fusion_table.told(tabled(paper))["groups"]
    return {group["name"]: group | {"text": " ".join(group["words"])} for group in groups}


def changed_records(paper: Paper, change, pattern="fuse/*") -> None:
    for path in sorted(paper.root.glob(f"runs/{pattern}/record.json")):
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))


def test_the_tables_hold_what_the_records_say(tmp_path):
    tables = tabled(several(tmp_path, sizes=TWO))
    rows = tables["fusions"].set_index("run")
    assert len(rows) == 2 * (len(GAINS) + 2)
    row, loss = rows.loc[RUN], law(shape_of_size(50_000).size, 800_000)
    assert (row["members"], row["related"], row["method"]) == (4, True, "uniform")
    assert row["best_loss"] == loss and row["loss"] + row["gain"] == pytest.approx(loss)
    assert row["control"] == "50k-3200000-s0-control-soup"
    members = tables["fusion_members"].query("run == @RUN")
    assert list(members["loss"] - loss) == pytest.approx(MEMBERS)
    assert list(members["place"]) == [0, 1, 2, 3] and set(members["weight"]) == {0.25}
    assert list(tables["fusion_lines"].query("run == @RUN")["share"]) == [0, 0.25, 0.5, 0.75, 1]
    growth = tables["fusion_growth"].query("run == @RUN")
    assert list(growth["members"]) == [1, 2, 3, 4] and growth["loss"].is_monotonic_decreasing


def test_the_law_of_more_members_is_the_one_that_was_put_in(tmp_path):
    laws = tabled(several(tmp_path, sizes=ONE))["merging_laws"]
    mine = laws[laws["run"] == RUN].set_index("parameter")
    loss = law(shape_of_size(50_000).size, 800_000)
    first = MERGED["E"] + MERGED["A"] / (1 + MERGED["b"])
    expected = MERGED | {"E": MERGED["E"] + loss - first}
    assert dict(mine["value"]) == pytest.approx(expected, abs=1e-5)
    assert (mine["low"] <= mine["value"]).all() and (mine["value"] <= mine["high"]).all()
    few = laws[laws["fuse"] == "seeds"]
    assert set(few["status"]) == {"too-few-points"} and few["value"].isna().all()


def test_what_exists_without_fusion_does_not_change_with_it(tmp_path):
    """Members, controls, fused models' scores and ensembles' probes stand beside the ladder."""
    plain, fused = (
        Paper(tmp_path / name, sizes=TWO, budgets=(800_000,)).whole() for name in ("plain", "fused")
    )
    for label in TWO:
        fuse(fused, label)
        probe_ensemble(fused, label, 4)
        labels = {"model": label, "budget": 800_000, "seed": 0, "fuse": "soup"}
        of = {"fuse": f"mixture-of-4-{label}-800000-soup"}
        answered(fused, of, labels | {"method": "mixture"}, 30)
    without, beside = drawn(plain), drawn(fused)
    assert {name for name in beside if not name.startswith("fusion")} == set(without)
    for name in without:
        one, other = (p.root / "figures" / f"{name}.svg" for p in (plain, fused))
        assert one.read_bytes() == other.read_bytes(), name
    runs = [paper.root / "tables" / "runs.parquet" for paper in (plain, fused)]
    ladders = [study_tables.own_ladder(study_tables.read(path)) for path in runs]
    for name in ("ladder", "trainings", "curves", "cells", "memory", "speeds", "scores", "pairs"):
        assert ladders[0][name].equals(ladders[1][name]), name


def test_every_way_is_held_against_the_best_member(tmp_path):
    (soup, *_) = fusions.found(tabled(several(tmp_path, sizes=ONE)))
    gains = {outcome.name: outcome for outcome in soup.outcomes}
    assert set(gains) == {*(fusions.NAMES[method] for method in GAINS), fusions.CONTROL}
    for method, gain in GAINS.items():
        outcome = gains[fusions.NAMES[method]]
        assert outcome.gain == pytest.approx(gain, rel=0.02) and outcome.error == ERROR
    control = gains[fusions.CONTROL]
    assert control.gain == pytest.approx(CONTROL_GAIN)
    independent = math.sqrt(2) * SURE["loss_standard_error"]
    assert control.error == pytest.approx(independent)
    assert soup.average.name == "uniform average" and soup.ensemble.name == "ensemble, mixture"


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(0.03, "better"), (-0.03, "worse"), (1.9 * ERROR, "not to be told apart")],
)
def test_better_and_worse_are_beyond_the_paired_error(tmp_path, gain, verdict):
    paper = small(tmp_path)
    fuse(paper, "50k", methods={"uniform": gain, "mixture": 0.04})
    assert f"uniform average {verdict} (" in told(paper)["soup"]["text"]


def test_strangers_are_destroyed_only_where_it_was_measured(tmp_path):
    said = told(several(tmp_path / "bad", sizes=TWO))
    assert "Averaging strangers destroys the model here" in said["seeds"]["text"]
    assert f"by {DESTROYED} nats per token at most (the barrier)" in said["seeds"]["text"]
    assert "strangers" not in said["soup"]["text"]
    paper = small(tmp_path / "mild")
    fuse(paper, "50k", "worse", related=False, methods={"uniform": -0.2, "mixture": 0.04})
    fuse(paper, "50k", "well", related=False, methods={"uniform": 0.02, "mixture": 0.04})
    said = told(paper)
    assert "a worse model than any member" in said["worse"]["text"]
    assert "did not make all models worse" in said["well"]["text"]
    assert "destroy" not in said["worse"]["text"] + said["well"]["text"]


def test_controls_that_are_missing_are_named(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k", methods={"softmax": 0.03}, control=False)
    text = told(paper)["soup"]["text"]
    assert (
        "Not measured, and so not compared: the uniform average, an ensemble of outputs and one "
        "model with the summed compute." in text
    )
    assert "summed compute" not in text.replace("one model with the summed compute", "")


def test_a_control_without_a_loss_is_no_control(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k")

    def diverged(record):
        if "control" in record["id"]:
            record |= {"status": "diverged", "reason": "the loss is not finite", "result": {}}

    changed_records(paper, diverged, "train/*")
    assert "not compared: one model with the summed compute" in told(paper)["soup"]["text"]


def test_softmax_is_told_with_its_weights(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k", temperature=1.0)
    fuse(paper, "50k", "sharp", temperature=0.01)
    said = told(paper)
    shares = [math.exp(-loss) for loss in MEMBERS]
    low, high = (f"{of(shares) / sum(shares):.3f}" for of in (min, max))
    assert f"Softmax at T = 1 gave weights of {low} to {high}" in said["soup"]["text"]
    assert "members within 0.1 nat get nearly equal weights" in said["soup"]["text"]
    assert "nearly equal" not in said["sharp"]["text"]


def test_whether_the_gain_grows_with_size_takes_sizes(tmp_path):
    said = told(several(tmp_path / "many"))
    assert "The gain of the average grows with size, by +0.0060" in said["soup"]["text"]
    # an average that is worse at every size has no gain to grow
    assert "The gain of the average" not in said["seeds"]["text"]
    two = told(several(tmp_path / "two", sizes=TWO))["soup"]["text"]
    assert "2 sizes are too few to tell that from chance" in two
    one = told(several(tmp_path / "one", sizes=ONE))["soup"]["text"]
    assert "with size" not in one


def test_weights_that_were_chosen_on_the_same_windows_are_owned_to(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k")
    assert "too short to choose" not in told(paper)["soup"]["text"]
    changed_records(paper, lambda record: record["result"].update(chosen_apart=False))
    assert "too short to choose" in told(paper)["soup"]["text"]


def test_an_ensembles_cost_stands_beside_its_gain(tmp_path):
    paper = small(tmp_path)
    paper.limits()
    paper.probe("50k", shape_of_size(50_000))
    fuse(paper, "50k")
    probe_ensemble(paper, "50k", 4)
    tables = tabled(paper)
    (row,) = fusion_table.told(tables)["cost"]
    average, ensemble, _, parameters, flops, speed, memory, training = row["cells"]
    assert ensemble[0] == "+0.045 ± 0.008" and average[0] == "+0.030 ± 0.008"
    assert parameters[1] == flops[1] == memory[1] == "× 4.0" and speed[1] == "× 0.25"
    # three more cooldowns of a fifth of the budget each, on one trunk
    alone = tables["ladder"]["flops"].iloc[0]
    assert training[0].startswith(f"{1.6 * alone:.2e}"[:4])
    # the ensemble's own work, attention included
    cells = tables["cells"].set_index(["model", "phase", "batch", "context"])
    both = cells[cells["members"] == 4]["flops"] / cells[cells["members"].isna()]["flops"]
    assert both.drop("train", level="phase").to_list() == pytest.approx([4.0] * 8)


def test_scores_are_held_against_the_best_member_that_was_asked(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k", offsets=(0.02, 0.0, 0.01))
    labels = {"model": "50k", "budget": 800_000, "seed": 0}
    # the member with the least loss was not asked; of the others the third has the less
    answered(paper, {"train": "50k-800000-s0"}, labels, 30)
    member = answered(paper, {"train": "50k-800000-s0-member-soup-2"}, labels, 20)
    fused = {"fuse": RUN.replace("4", "3", 1)}
    answered(paper, fused, labels | {"fuse": "soup", "method": "uniform"}, 26)
    tables = tabled(paper)
    row = tables["fusion_scores"].query("metric == 'acc'").iloc[0]
    assert (row["member"], row["test"], row["items"]) == (member, "McNemar", 40)
    assert row["difference"] == pytest.approx(6 / 40) and row["p"] == pytest.approx(2 * 0.5**6)
    shown = fusion_table.told(tables)["scores"]
    assert shown["methods"] == ["uniform average"]
    assert [(r["member"], r["cells"][0][0]) for r in shown["rows"]] == [("0.500", "0.650")]
    # the first member is the better at this task, and says so too
    assert row["best_member_value"] == 30 / 40 and row["best_difference"] == pytest.approx(-0.1)
    assert shown["rows"][0]["best"] == "0.750"
    said = "soup, against the member that is best at the task: uniform average"
    assert shown["words"][0].startswith(said)


def test_a_control_of_fine_tunings_is_what_the_fusion_measured(tmp_path):
    """Its loss on the same windows, paired; its score on the task beside theirs."""
    paper = small(tmp_path)
    tuned(paper, "50k")
    labels = {"model": "50k", "budget": 800_000, "seed": 0}
    for run, right in (("tuned-a", 20), ("tuned-b", 24)):
        answered(paper, {"finetune": run}, labels | {"finetune": "a", "method": "full"}, right)
    control = labels | {"fuse": "tuned", "method": "control", "role": "control"}
    answered(paper, {"finetune": "tuned-ab"}, control, 30)
    tables = tabled(paper)
    (each,) = fusions.found(tables)
    outcome = each.of(fusions.CONTROL)
    assert (outcome.gain, outcome.error, outcome.row) == (-0.05, ERROR, None)
    text = told(paper)["tuned"]["text"]
    assert "the same base with the steps of all" in text and "Not measured" not in text
    assert fusiontext.words([each]) == [fusiontext.COMMON]
    scored = fusion_table.told(tables)["scores"]
    assert scored["methods"] == [fusions.CONTROL]
    assert (scored["rows"][0]["member"], scored["rows"][0]["best"]) == ("0.500", "0.600")
    assert "one model, summed compute better" in scored["words"][0]
    assert "steps of all" in drawn(paper)["fusion-gain-tuned"]["caption"]


def test_a_task_that_was_learned_is_told_as_where_it_was_learned(tmp_path):
    """Of written answers, none of which is exactly right, by chrF; and that tasks cross is said of
    those alone that divide the same documents by other shares."""
    paper = small(tmp_path)
    tunings, ids = Tunings(paper), []
    for name in ("part", "docstring"):
        tunings.examples(name)
        tunings.tuned(name, "50k", gain=-1.0 if name == "docstring" else 0.0)
        ids.append(f"50k-{name}-1-full-s0")
    tuned(paper, "50k", ids)
    for name, right in (("part", 0.5), ("docstring", 0.0)):
        tunings.fused(name, "50k", "uniform-of-2-50k-tuned", right)
    tables = tabled(paper)
    scored, learned = fusion_table.told(tables)["scores"], finetune_table.told(tables)["tasks"]
    shown = {row["task"].removesuffix(" test"): row["metric"] for row in scored["rows"]}
    assert shown == {"part": "accuracy", "docstring": "chrF"}
    assert shown == {task["name"]: task["metric"] for task in learned}
    crossing = "In tuned, one task’s test documents may be among those that another task’s"
    assert not any(text.startswith(crossing) for text in scored["words"])
    changed_records(paper, lambda record: record["spec"].update(test=0.4), "examples/part-ee")
    assert fusion_table.told(tabled(paper))["scores"]["words"][0].startswith(crossing)


def test_controls_that_cannot_be_are_told_apart_from_those_not_measured(tmp_path):
    paper = small(tmp_path, TWO)
    fuse(paper, "50k", "mixed", methods={"mixture": 0.04}, control=False)
    run = next(run for run in paper.runs if run["verb"] == "fuse")
    run["labels"] = {"fuse": "mixed", "method": "mixture"}

    def two_sizes(record):
        record["result"]["members"][1]["run"] = "300k-800000-s0"

    changed_records(paper, two_sizes)
    text = told(paper)["mixed"]["text"]
    assert "There is no uniform average: weights are averaged of models of one shape." in text
    assert "There is no model with the summed compute: that takes" in text
    assert "Not measured" not in text


def test_named_members_of_one_shape_share_the_probe_of_another_fusion(tmp_path):
    """One probe serves both, whatever it is called."""
    paper = small(tmp_path)
    paper.limits()
    paper.probe("50k", shape_of_size(50_000))
    fuse(paper, "50k", methods={"mixture": 0.04})
    fuse(paper, "50k", "named", methods={"mixture": 0.04}, control=False)
    for run in paper.runs:
        if run["verb"] == "fuse" and run["labels"]["fuse"] == "named":
            run["labels"] = {"fuse": "named", "method": "mixture"}
    probe_ensemble(paper, "50k", 4)
    first, second = fusion_table.told(tabled(paper))["cost"]
    assert first["cells"][5] == second["cells"][5] and first["cells"][5][1] == "× 0.25"


def test_what_was_refused_is_listed_and_the_rest_is_told(tmp_path):
    paper = small(tmp_path)
    fuse(paper, "50k", methods={"uniform": 0.03, "mixture": 0.04})
    reason = "members: have no common ancestor"
    labels = {"model": "50k", "budget": 800_000, "fuse": "seeds", "method": "slerp"}
    said = {"status": "refused", "reason": reason}
    spec = {"members": [{"verb": "train", "run": "a"}] * 2, "method": "slerp"}
    paper.add("fuse", "slerp-of-2-x", labels, {}, spec, **said)
    text = page(paper)
    assert reason in text and "fuse seeds" in text and 'id="fusion"' in text
    tables = study_tables.read(tmp_path / "tables" / "runs.parquet")
    assert [each.fuse for each in fusions.found(tables)] == ["soup"]


def test_members_of_no_one_model_and_from_elsewhere(tmp_path):
    paper = small(tmp_path, TWO)
    fuse(paper, "50k", "mixed", methods={"mixture": 0.04}, control=False)

    def elsewhere(record):
        record["result"]["members"][1] |= {"verb": None, "run": None}
        record["result"]["members"][1] |= {"pretrained": "a/b@c"}

    changed_records(paper, elsewhere)
    run = next(run for run in paper.runs if run["verb"] == "fuse")
    run["labels"] = {"fuse": "mixed", "method": "mixture"}
    tables = tabled(paper)
    assert "a/b@c" in set(tables["fusion_members"]["member"])
    (only,) = fusions.found(tables)
    assert only.shown == "several models" and only.params is None, "of one size, or of several"
    assert "several models" in page(paper)


def test_a_study_without_fusion_has_no_section_and_empty_tables(tmp_path):
    paper = small(tmp_path)
    assert 'id="fusion"' not in page(paper)
    tables = study_tables.read(tmp_path / "tables" / "runs.parquet")
    names = [name for name in tables if name.startswith("fusion") or name == "merging_laws"]
    assert len(names) == 6 and all(tables[name].empty for name in names)


def test_the_page_and_its_figures(tmp_path):
    text = page(several(tmp_path, sizes=TWO))
    section = text[text.index('id="fusion"') : text.index('id="failures"')]
    assert fusiontext.COMMON in section and "The law of more members" in section
    index = json.loads((tmp_path / "figures" / "index.json").read_text())
    entries = {entry["name"]: entry for entry in index}
    names = {name for name in entries if entries[name]["section"] == "fusion"}
    gains = {"fusion-gain-soup", "fusion-gain-seeds", "fusion-size-average", "fusion-size-ensemble"}
    assert names == gains | {"fusion-lines", "fusion-growth-soup", "fusion-growth-seeds"}
    far = [name for name in names if "logarithmic beyond" in entries[name]["caption"]]
    assert set(far) == {"fusion-gain-seeds", "fusion-size-average"}
    svg = (tmp_path / "figures" / "fusion-lines.svg").read_text()
    assert svg.index("(related)") < svg.index("(unrelated)")
    assert "Lines are the law" in entries["fusion-growth-soup"]["caption"]
    assert "not determined" in entries["fusion-growth-seeds"]["caption"]
    command = [sys.executable, "-m", "llama_bench", "plot", '{"study": "paper"}']
    runs = str(tmp_path / "tables" / "runs.parquet")
    again = [*command, str(tmp_path / "again" / "index.json"), runs]
    subprocess.run(again, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    for name in names:
        first, second = (tmp_path / folder / f"{name}.svg" for folder in ("figures", "again"))
        assert first.read_bytes() == second.read_bytes(), name
