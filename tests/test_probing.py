"""What a study asks of its probes: how long, on which device, and on whose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llama_bench import machine
from llama_bench.study import UserError, load
from workflow import REPOSITORY, snakemake

SMALL = {
    "models": {"train": [{"size": "22k"}]},
    "train": {"budgets": ["250k"], "horizon": "500k", "batch": 2},
}
PHASES = {"phases": ["prefill"]}


def probes(given: dict) -> list:
    return [run for run in load(given).runs.values() if run.spec.verb == "probe"]


def refusal(elsewhere: bool, **probe) -> str:
    with pytest.raises(UserError) as caught:
        load({**SMALL, "probe": PHASES | probe}).check_device(elsewhere)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture
def without_gpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if machine.device() == "cuda":
        pytest.skip("this machine has a GPU")


def test_ten_repeats_and_five_seconds_unless_a_study_says_otherwise(monkeypatch):
    assert {(run.spec.repeats, run.spec.seconds) for run in probes(SMALL)} == {(10, 5.0)}
    monkeypatch.chdir(REPOSITORY)
    assert {(run.spec.repeats, run.spec.seconds) for run in probes({})} == {(5, 0.3)}


@pytest.mark.parametrize("device", ["cuda", "H200"])
def test_a_gpu_that_is_not_there_is_said_before_the_first_job(without_gpu, device):
    message = refusal(elsewhere=False, device=device)
    assert message.startswith(f"config: probe.device: {device}") and "no NVIDIA GPU" in message
    load({**SMALL, "probe": PHASES | {"device": "cpu"}}).check_device(elsewhere=False)


def test_more_processes_than_gpus_are_said_at_the_start(without_gpu, capsys):
    for gpus, elsewhere, said in ((1, False, False), (2, False, True), (2, True, False)):
        given = {**SMALL, "train": {**SMALL.get("train", {}), "gpus": gpus}}
        study = load({**given, "probe": PHASES | {"device": "cpu"}})
        study.check_device(elsewhere)
        assert ("train.gpus: 2" in capsys.readouterr().err) is said


def test_records_of_another_machine_need_no_gpu(without_gpu):
    study = load({**SMALL, "probe": PHASES | {"device": "cuda"}})
    for path, run in study.runs.items():
        if run.spec.verb in ("probe", "limits"):
            Path(path).parent.mkdir(parents=True)
            Path(path).touch()
    study.check_device(elsewhere=False)


def test_jobs_that_run_elsewhere_look_for_the_device_themselves(without_gpu):
    load({**SMALL, "probe": PHASES | {"device": "cuda"}}).check_device(elsewhere=True)
    assert "auto" in refusal(elsewhere=True)
    load({**SMALL, "probe": {"phases": []}}).check_device(elsewhere=True)


def test_snakemake_says_it_in_one_line_and_runs_nothing(without_gpu, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "probe": PHASES | {"device": "cuda"}}))
    ended = snakemake(tmp_path, "--config", f"file={path}")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("llama_bench: config: probe.device: cuda is asked for")
    assert not [*tmp_path.glob("results/**/record.json")]


def test_on_a_cluster_timed_jobs_have_a_node_for_themselves():
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    for rule in ("probe", "limits"):
        assert "--exclusive" in profile["set-resources"][rule]["slurm_extra"]
    assert profile["cores"] > 1, "the node's, not those of the machine that submits"
