"""The smallest whole study, from nothing to the report; then what runs again, and what does not."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from llama_bench import records
from llama_bench.study import UserError, listing_of, load
from workflow import REPOSITORY, plan, snakemake

TINY = yaml.safe_load((REPOSITORY / "studies/smoke.yaml").read_text())
DERIVED = {"all", "collect", "plot", "report"}


def changed(**sections) -> dict:
    config = copy.deepcopy(TINY)
    for section, keys in sections.items():
        config[section] = {**config.get(section, {}), **keys}
    return config


def written(folder: Path, config: dict) -> str:
    path = folder / f"{config['study']}.yaml"
    path.write_text(yaml.safe_dump(config))
    return f"file={path}"


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder in which the tiny study has run."""
    folder = tmp_path_factory.mktemp("study")
    ended = snakemake(folder, "--config", written(folder, TINY))
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def test_from_nothing_to_the_report(done):
    found = [records.read(path) for path in (done / "results/runs").rglob("record.json")]
    assert sorted(record.verb for record in found) == sorted(
        ["prepare", "tasks", "limits"] + ["train"] * 4 + ["evaluate"] * 4 + ["probe"] * 2
    )
    assert {record.status for record in found} == {"ok"}
    report = (done / "results/studies/smoke/report.html").read_text()
    for words in ("10k", "20k", "30k", "60k", "heldout_next_line", "<svg"):
        assert words in report
    losses = {
        (r.spec["model"]["width"], r.spec["tokens"]): r.result["loss"]
        for r in found
        if r.verb == "train"
    }
    for width in {width for width, _ in losses}:
        assert losses[width, 60_000] < losses[width, 30_000]


def test_every_job_had_exactly_its_threads(done):
    for path in (done / "results/runs/train").rglob("record.json"):
        record = records.read(path)
        assert record.provenance["threads"] == record.result["threads"] == 1


def test_nothing_changed_nothing_runs(done):
    assert plan(done, TINY) == []


def test_a_finished_run_that_snakemake_lost_sight_of_stays(done, tmp_path):
    """A job that goes on after its snakemake was stopped leaves a record, and a mark beside it."""
    folder = shutil.copytree(done, tmp_path / "study")
    record = next((folder / "results/runs/train").rglob("record.json")).relative_to(folder)
    marks = folder / ".snakemake/incomplete"
    marks.mkdir(parents=True, exist_ok=True)
    for path in (str(record), "results/runs/train/another/record.json"):
        (marks / urlsafe_b64encode(path.encode()).decode()).touch()
    assert plan(folder, TINY) == []
    assert len([*marks.iterdir()]) == 1, "what is not there may be unfinished"


def test_the_order_of_keys_and_spellings_change_nothing(done):
    config = changed(train={"budgets": [6e4, "30_000"]})
    assert [job for job in plan(done, config) if job not in DERIVED] == []


def rules(jobs: list[str]) -> dict[str, int]:
    names = [job.split()[0] for job in jobs]
    return {name: names.count(name) for name in names if name not in DERIVED}


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        (
            {"models": {"train": [*TINY["models"]["train"], {"size": "30k"}]}},
            {"train": 2, "evaluate": 2, "probe": 1},
        ),
        ({"train": {"budgets": ["30k", "60k", "90k"]}}, {"train": 2, "evaluate": 2}),
        ({"train": {"budgets": ["30k", "45k", "60k"]}}, {"train": 2, "evaluate": 2}),
        ({"train": {"seeds": [0, 1]}}, {"train": 4, "evaluate": 4}),
        (
            {"evaluate": {"suites": {"heldout": {}, "lines": {"tasks": ["heldout_next_line"]}}}},
            {"evaluate": 4},
        ),
        ({"probe": {"batches": [1, 2]}}, {"probe": 2}),
        ({"models": {"train": TINY["models"]["train"][:1]}}, {}),
    ],
    ids=["size", "larger budget", "budget between", "seed", "suite", "probe", "size taken away"],
)
def test_only_what_was_added_runs(done, change, runs):
    jobs = plan(done, changed(**change))
    # (a size or budget more may make a law possible, which is then fitted)
    assert {rule: count for rule, count in rules(jobs).items() if rule != "fit"} == runs
    assert {job for job in jobs if job in DERIVED} == DERIVED


def test_fine_tuning_and_fusion_are_added_to_what_is_there(done, tmp_path):
    """Through to the report, with an ensemble that is evaluated and probed."""
    folder = shutil.copytree(done, tmp_path / "study")
    rows = tmp_path / "rows.jsonl"
    words = [("import os, sys", "code"), ("a quiet evening at sea", "prose")]
    told = (
        {"text": f"{number} {text}", "is": kind} for number in range(60) for text, kind in words
    )
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    kinds = {"examples": str(rows), "prompt": "{text} is", "answer": " {is}", "choices": True}
    kinds |= {"models": ["10k"], "steps": 10, "context": 64, "suites": []}
    kinds |= {"from_zero": True, "methods": ["full", "lora"]}
    fused = {"members": {"cooldowns": 2}, "models": ["10k"], "line": 3, "control": False}
    tuned = {"members": {"finetune": ["kinds"]}, "models": ["10k"], "line": 3, "suites": []}
    seeds = {"members": {"seeds": 2}, "models": ["10k"], "line": 3, "suites": [], "probe": False}
    seeds |= {"allow_unrelated": True, "methods": ["uniform"]}
    asked = {"pair": fused, "tuned": tuned | {"probe": False}, "strangers": seeds}
    config = {**changed(finetune={"kinds": kinds}, fuse=asked), "study": "adapted"}
    ended = snakemake(folder, "--config", written(folder, config))
    assert ended.returncode == 0, ended.stderr[-3000:]
    before, after = ({p.parent.name: p for p in of.rglob("record.json")} for of in (done, folder))
    found = [records.read(after[name]) for name in after.keys() - before.keys()]
    assert Counter(record.verb for record in found) == {
        **{
            "train": 3,
            "examples": 1,
            "finetune": 4,
        },  # a cooldown, a seed and its control; a control
        **{"fuse": 6, "probe": 1},  # a mean and a mixture of each three
        "evaluate": 1 + 4 + 2 + 2,  # before, after, and fusions on the test; on the suite
    }
    assert {record.status for record in found} == {"ok"}
    tables = folder / "results/studies/adapted/tables"
    gains, fusions, cells = (
        pd.read_parquet(tables / f"{name}.parquet") for name in ("gains", "fusions", "cells")
    )
    assert set(fusions["method"]) == {"uniform", "mixture"}
    means = fusions[fusions["method"] == "uniform"].set_index("fuse")
    assert set(gains["against"]) == {"before", "from zero"}
    assert means["barrier"]["strangers"] > 10 * means["barrier"]["pair"]
    assert means["control_loss"].notna().to_dict() == {
        **{"pair": False, "strangers": False},  # none, and a training, which has told its own
        "tuned": True,
    }
    assert len(gains) and set(cells["members"].dropna()) == {2}
    report = (folder / "results/studies/adapted/report.html").read_text()
    for words in ("Fine-tuning", "Fusion", "ensemble, mixture", "What failed or is missing"):
        assert words in report


def test_a_run_that_is_forced_is_given_its_inputs(done):
    """A finished one needs none, and would fail without them when it is made again."""
    dry = snakemake(done, "-n", "-p", "-R", "evaluate", "--config", written(done, TINY))
    assert dry.returncode == 0, dry.stderr[-3000:]
    told = [line for line in dry.stdout.splitlines() if "llama_bench evaluate " in line]
    assert len(told) == 4
    for command in told:
        assert command.count("results/runs/train/") == 1 and "results/runs/tasks/" in command


def test_a_law_is_fitted_without_measuring(done):
    """With three budgets and sizes there are enough runs; asked of the plan alone."""
    sizes = [{"size": size} for size in ("10k", "20k", "30k")]
    config = changed(models={"train": sizes}, train={"budgets": ["30k", "60k", "90k"]})
    assert rules(plan(done, config))["fit"] == len(load(config).laws) > 0


def test_a_rule_text_is_no_reason_to_measure_again(done, tmp_path):
    """The workflow may be rewritten; what was measured stays."""
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow")
    shutil.copy(REPOSITORY / "Snakefile", tmp_path / "Snakefile")
    rule = tmp_path / "workflow/rules/train.smk"
    rule.write_text(rule.read_text().replace("launcher} train", "launcher}  train"))
    assert "launcher}  train" in rule.read_text()
    for path in (done / "results/runs/prepare").rglob("record.json"):
        path.touch()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(tmp_path / "Snakefile"), "-n"),
            *("--workflow-profile", str(REPOSITORY / "profiles/default"), "--directory", str(done)),
            *("--config", written(done, TINY), "--until", "train", "evaluate", "probe"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Nothing to be done" in ended.stdout + ended.stderr


def test_the_command_in_the_log_is_the_whole_job(done, tmp_path):
    """A collect or report command needs no snakemake around it: tables come out the same."""
    spec = load({"file": str(done / "smoke.yaml")}).collect_spec("smoke")
    output = tmp_path / "tables" / "runs.parquet"
    command = [sys.executable, "-m", "llama_bench", "collect", spec, str(output)]
    subprocess.run(command, cwd=done, check=True)
    for table in (done / "results/studies/smoke/tables").glob("*.parquet"):
        assert (tmp_path / "tables" / table.name).read_bytes() == table.read_bytes()


def test_real_pretrained_llamas_stand_beside_the_trained(done, shared):
    """Trained elsewhere, on other text: evaluated, probed, and in the same tables."""
    folders = [shared("models", name) for name in ("stories260K", "stories3M")]
    pretrained = [{"path": str(folder)} for folder in folders]
    config = changed(models={"train": TINY["models"]["train"], "pretrained": pretrained})
    assert rules(plan(done, config)) == {"evaluate": 2, "probe": 2}
    ended = snakemake(done, "--config", written(done, {**config, "study": "beside"}))
    assert ended.returncode == 0, ended.stderr[-3000:]
    tables = done / "results/studies/beside/tables"
    scores = pd.read_parquet(tables / "scores.parquet")
    speeds = pd.read_parquet(tables / "speeds.parquet")
    for table in (scores, speeds):
        assert {"10k", "20k", "stories260K", "stories3M"} == set(table["model"])
        counts = table.groupby("model")[["parameters_all", "parameters_without_embeddings"]].first()
        assert counts.loc["stories260K"].tolist() == [260_032, 227_264]
        assert counts.loc["stories3M"].tolist() == [3_148_224, 2_361_792]
    report = (done / "results/studies/beside/report.html").read_text()
    assert "stories3M" in report


def test_a_model_over_several_gpus_is_said_in_the_command_and_renames_nothing(tmp_path, shared):
    folder = {"path": str(shared("models", "stories260K"))}
    alone, spread = ({"pretrained": [folder | more]} for more in ({}, {"gpus": 2}))
    assert load(changed(models=spread)).runs.keys() == load(changed(models=alone)).runs.keys()
    with pytest.raises(UserError, match="is spread over several GPUs"):
        load(changed(models=spread, evaluate={"quantization": "int8"}))
    shown = snakemake(tmp_path, "-n", "-p", "--config", written(tmp_path, changed(models=spread)))
    assert shown.returncode == 0, shown.stderr
    commands = [line for line in shown.stdout.splitlines() if " evaluate '" in line]
    spread = [line for line in commands if "LLAMA_BENCH_GPUS=2 python -m llama_bench" in line]
    assert len(commands) == 5 and spread == [line for line in commands if "pretrained" in line]


def test_the_suites_of_a_model_share_a_process(done, tmp_path):
    """On one core nobody else can begin a suite before the first one's process goes on to it."""
    folder = shutil.copytree(done, tmp_path / "study")
    suites = {name: {"tasks": [f"heldout_{name}"]} for name in ("next_line", "cloze", "identifier")}
    config = changed(evaluate={"suites": {"heldout": {}, **suites}}) | {"study": "suites"}
    ended = snakemake(folder, "--cores", "1", "--config", written(folder, config))
    assert ended.returncode == 0, ended.stderr[-3000:]
    paths = set((folder / "results/runs/evaluate").rglob("*.json"))
    paths -= {folder / path.relative_to(done) for path in done.rglob("record.json")}
    new = [records.read(path) for path in paths if path.name == "record.json"]
    commands = Counter(tuple(record.provenance["command"]) for record in new)
    assert len(new) == 12 and [*commands.values()] == [3] * 4
    assert not [path for path in paths if path.name == "ahead.json"]
    assert {*plan(folder, config)} <= DERIVED
    load_once = load(config)
    elsewhere = load(config)
    elsewhere.near = lambda: False  # jobs with time limits of their own, on a cluster
    for run in load_once.runs.values():
        if run.spec.verb == "evaluate":
            assert load_once.then(run.spec.id).count("--then") == 3
            assert elsewhere.then(run.spec.id) == ""


def test_a_forecast_is_written_before_the_run_that_tests_it(tmp_path):
    """The plan alone proves the order: the held-out training waits for the forecast's file."""
    sizes = [{"size": size} for size in ("10k", "20k", "30k", "40k")]
    config = changed(models={"train": sizes}, train={"budgets": ["30k", "60k", "90k"]})
    config["hold_out"] = {"models": ["40k"], "budgets": ["60k"]}
    study = load(config)
    held_out = {run.path for run in study.runs.values() if run.after}
    assert len(held_out) == 6
    losses, scores = (study.forecast_from(Path(path).stem) for path in study.forecasts)
    assert not {path for path in losses if "/evaluate/" in path}
    assert len([path for path in scores if "/evaluate/" in path]) == len(losses) == 6
    ladder = {path for path in scores if "/train/" in path}
    assert ladder == set(losses) and not held_out & ladder
    for run in study.runs.values():
        if run.path in scores:  # what a forecast rests on rests on nothing that is held out
            assert not held_out & set(run.inputs)
        assert run.after == (tuple(study.forecasts) if run.path in held_out else ())
    assert rules(plan(tmp_path, config))["forecast"] == 2


def test_a_suite_more_renames_no_forecast_of_a_loss(tmp_path):
    sizes = [{"size": size} for size in ("10k", "20k", "30k", "40k")]
    config = changed(models={"train": sizes}, train={"budgets": ["30k", "60k", "90k"]})
    config["hold_out"] = {"models": ["40k"]}
    more = {"suites": {"heldout": {}, "lines": {"tasks": ["heldout_next_line"]}}}
    before, after = (list(load(each).forecasts) for each in (config, {**config, "evaluate": more}))
    assert len(before) == 2 and len(after) == 3 and before[0] == after[0]
    assert len(load({**config, "evaluate": {"suites": {}}}).forecasts) == 1


def test_an_accident_keeps_the_rest_and_is_gone_on_from(tmp_path):
    """A killed training: its log is named, the partial report names it, the next start ends it."""
    config = changed(
        models={"train": [{"size": "10k"}]},
        train={"budgets": ["2M"], "warmup_tokens": "4k"},
        evaluate={"suites": {}},
        probe={"phases": []},
    )
    words = ["--config", written(tmp_path, {**config, "study": "hurt"})]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(tmp_path), "--cores", "2", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    seen = []
    for line in process.stderr:  # the training reports itself every few seconds
        seen.append(line)
        if line.startswith("[train") and "of its steps" in line:
            break
    (job,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "train" in child.cmdline()
    ]
    job.send_signal(signal.SIGKILL)
    rest = process.communicate()[1]
    assert process.returncode != 0
    assert "log.txt" in rest
    assert not list((tmp_path / "results/runs/train").rglob("record.json"))
    assert list((tmp_path / "results/runs/prepare").rglob("record.json"))

    assert snakemake(tmp_path, "partial", *words).returncode == 0
    partial = (tmp_path / "results/studies/hurt-partial/report.html").read_text()
    assert "results/runs/train/" in partial

    ended = snakemake(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "results/studies/hurt/report.html").exists()


def test_a_user_sees_one_message_and_no_traceback(tmp_path):
    for given in ("file=absent.yaml", written(tmp_path, {"study": "bad", "modles": {}})):
        ended = snakemake(tmp_path, "-n", "--config", given)
        assert ended.returncode != 0
        assert "Traceback" not in ended.stdout + ended.stderr
        assert "llama_bench: " in ended.stderr


def test_a_thousand_runs_are_listed_from_their_configuration():
    """The listing would not fit on a command line; the spec that makes it again does."""
    sizes = [{"size": 50_000 * 2**n} for n in range(10)]
    recipe = {"budgets": ["1M", "2M", "4M", "8M", "16M"], "seeds": list(range(10))}
    recipe["horizon"] = "1M"
    study = load({"models": {"train": sizes}, "train": recipe})
    spec = study.collect_spec("default")
    assert len(study.runs) > 1000
    assert len(spec) < 10_000
    listed = json.loads(listing_of(spec))
    assert [run["path"] for run in listed["runs"]] == list(study.runs)


def test_torch_is_not_needed_to_plan():
    code = "import sys, llama_bench.study; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
