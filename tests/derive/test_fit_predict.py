"""The two verbs on anybody's table: good ones, and every kind of bad one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llama_bench.derive import fit as fit_verb
from llama_bench.derive import predict as predict_verb
from llama_bench.derive.fit import fit_table
from llama_bench.derive.fitting import runs_table, table_file
from llama_bench.derive.fitting.families import FAMILIES
from llama_bench.derive.predict import predict_table
from llama_bench.derive.words import lawtext, show
from llama_bench.fields import UserError

FAST = {"draws": 60, "starts": 16}
STATUSES = {"converged", "at-bounds", "ill-posed", "too-few-points"}


def table(rows_per_size: int = 4, noise: float = 0.004, sizes: int = 5) -> pd.DataFrame:
    """Runs of a known law, with every column that any law needs."""
    random = np.random.default_rng(0)
    params = np.repeat(np.geomspace(1e7, 1e9, sizes), rows_per_size)
    tokens = np.tile(np.geomspace(1e9, 3e10, rows_per_size), sizes)
    loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.37
    loss *= np.exp(random.normal(0, noise, len(loss)))
    task_loss = 0.4 + (loss - 1.8) * 0.7
    return pd.DataFrame(
        {
            "params": params,
            "tokens": tokens,
            "loss": loss,
            "unique_tokens": np.minimum(tokens, 5e9),
            "task_loss": task_loss,
            "accuracy": 0.25 + 0.7 / (1 + np.exp(4 * (task_loss - 1.0))),
        }
    )


def isoflops() -> pd.DataFrame:
    """Four budgets of seven sizes each about the best one, without noise."""
    flops = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
    params = np.sqrt(flops / 120) * np.tile(np.geomspace(0.2, 5, 7), 4)
    tokens = flops / 6 / params
    loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.35
    return pd.DataFrame({"params": params, "tokens": tokens, "flops": flops, "loss": loss})


def command(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "llama_bench", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


# the keys of a parameter; laws of several regressions, each with a status of its own
ENTRY = {"value", "standard_error", "low", "high", "covered", "unbounded", "at_bound"}
SEVERAL = ("two_step", "isoflop", "envelope")


def test_the_two_commands_end_to_end(tmp_path):
    runs, points = tmp_path / "runs.csv", tmp_path / "points.csv"
    table().to_csv(runs, index=False)
    points.write_text('name,params,tokens\nbig,7B,1.4T\nsmall,"1,000,000",2_0e6\n')
    spec = json.dumps({"law": "chinchilla"} | FAST)
    for words in (
        ("fit", spec, tmp_path / "fit.json", runs),
        ("predict", tmp_path / "fit.json", tmp_path / "out.csv", points),
    ):
        done = command(*words)
        assert done.returncode == 0, done.stderr
    said = pd.read_csv(tmp_path / "out.csv")
    assert list(said["name"]) == ["big", "small"]
    assert {"point", "low_50", "high_80", "low_95", "covered_95", "status"} <= set(said)
    assert 1.5 < said["point"][0] < 2.3


def test_a_mistake_is_one_message_and_no_traceback(tmp_path):
    runs = tmp_path / "runs.csv"
    table().rename(columns={"params": "parms"}).to_csv(runs, index=False)
    done = command("fit", "chinchilla", tmp_path / "fit.json", runs)
    assert done.returncode == 2
    assert "'params' is missing; did you mean 'parms'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "fit.json").exists()


def test_the_same_table_gives_the_same_bytes(tmp_path):
    runs = tmp_path / "runs.parquet"
    table().to_parquet(runs)
    spec = json.dumps({"law": "chinchilla"} | FAST)
    for name in ("one.json", "two.json"):
        fit_verb.run(spec, tmp_path / name, [runs])
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("law", sorted(FAMILIES))
def test_every_law_fits_is_json_and_predicts(law, tmp_path):
    frame = isoflops() if law in ("isoflop", "envelope", "frontier") else table(6)
    if law == "constant":
        frame["accuracy"] = 0.4 + 0.01 * np.cos(frame.index)
    fit = fit_table(frame, {"law": law} | FAST)
    text = json.dumps(fit, allow_nan=False)
    assert fit["status"] in STATUSES
    for entry in fit["parameters"].values():
        assert set(entry) == ENTRY
        assert (entry["covered"] is None) == (fit["status"] != "converged") or law in SEVERAL
    said = predict_table(json.loads(text), frame.drop(columns="loss"))
    assert len(said) == len(frame)
    column = dict.fromkeys(("direct", "two_step", "constant"), "accuracy").get(law, "loss")
    assert np.nanmedian(np.abs(said["point"] / frame[column] - 1)) < 0.15


def test_predictions_are_those_of_the_formula():
    fit = fit_table(table(noise=0.0), {"law": "chinchilla"} | FAST)
    said = predict_table(fit, pd.DataFrame({"params": [7e10], "tokens": [1.4e12]})).iloc[0]
    assert said["point"] == pytest.approx(1.8 + 480 / 7e10**0.35 + 2100 / 1.4e12**0.37, rel=1e-6)


def test_wider_levels_hold_narrower_ones():
    fit = fit_table(table(noise=0.02), {"law": "chinchilla"} | FAST)
    points = pd.DataFrame({"params": [1e8, 1e11], "tokens": [1e10, 1e13]})
    said = predict_table(fit, points, levels=(0.95, 0.5, 0.8))
    for narrow, wide in ((50, 80), (80, 95)):
        assert (said[f"low_{wide}"] <= said[f"low_{narrow}"]).all()
        assert (said[f"high_{wide}"] >= said[f"high_{narrow}"]).all()
    assert (said["high_95"] - said["low_95"])[1] > 0


def test_the_best_split_is_that_of_the_closed_form():
    fit = fit_table(table(noise=0.0), {"law": "chinchilla"} | FAST)
    a, b, alpha, beta = (fit["parameters"][n]["value"] for n in ("A", "B", "alpha", "beta"))
    for entry in fit["allocation"]:
        scale = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
        best = scale * (entry["flops"] / 6) ** (beta / (alpha + beta))
        assert entry["params"]["value"] == pytest.approx(best, rel=1e-3)
        assert entry["tokens"]["value"] == pytest.approx(entry["flops"] / 6 / best, rel=1e-3)
        assert entry["flat"]["params_low"] < best < entry["flat"]["params_high"]
    assert fit["derived"]["a"]["value"] == pytest.approx(beta / (alpha + beta))


def test_isoflop_and_envelope_find_the_exponents():
    fit = fit_table(isoflops(), {"law": "isoflop"} | FAST)
    assert fit["parameters"]["a"]["value"] == pytest.approx(0.5, abs=0.005)
    assert fit["parameters"]["b"]["value"] == pytest.approx(0.5, abs=0.005)
    optima = pd.DataFrame({"flops": [1e18, 1e19, 1e20, 1e21], "params": [1e8, 3e8, 9e8, 2.7e9]})
    optima["tokens"] = optima["flops"] / 6 / optima["params"]
    fit = fit_table(optima, {"law": "envelope", "rows": "optima"} | FAST)
    assert fit["parameters"]["a"]["value"] == pytest.approx(np.log10(3), rel=1e-6)


def test_a_frontier_of_minima_is_tested_on_the_best_runs():
    fit = fit_table(isoflops(), {"law": "frontier"} | FAST)
    minima = fit_table(isoflops(), {"law": "frontier", "points": "minima"} | FAST)
    assert minima["status"] == fit["status"] == "converged"
    assert [p["row"] for p in minima["points_used"]] == [p["row"] for p in fit["points_used"]]
    for mine, best in zip(minima["points_used"], fit["points_used"], strict=True):
        assert mine["loss"] == pytest.approx(best["loss"], rel=0.01)


def test_another_way_of_counting_shows_the_shift_of_the_exponent():
    frame = table(noise=0.0)
    frame["params_with_embeddings"] = frame["params"] + 4e7
    [entry] = fit_table(frame, {"law": "chinchilla"} | FAST)["counting"]
    assert entry["column"] == "params_with_embeddings"
    assert entry["shifts"]["alpha"] == pytest.approx(entry["values"]["alpha"] - 0.35, abs=1e-4)
    assert entry["shifts"]["alpha"] > 0.01
    curves = isoflops()
    curves["params_without_embeddings"] = curves["params"] ** 1.1 / 1e9**0.1
    [entry] = fit_table(curves, {"law": "isoflop"} | FAST)["counting"]
    assert entry["shifts"]["a"] == pytest.approx(0.05, abs=0.01)


def test_flops_do_not_overflow():
    frame = table().astype({"params": "int64", "tokens": "int64"})
    frame["tokens"] *= 10_000
    checked = runs_table.checked(frame, ["params", "tokens", "loss"])
    assert checked["flops"].max() == pytest.approx(6.0 * 1e9 * 3e14)


def spoilt(change) -> pd.DataFrame:
    frame = table().astype(object)
    changed = change(frame)
    return changed if isinstance(changed, pd.DataFrame) else frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("loss"), "'loss' is missing"),
        (
            lambda f: f.rename(columns={"tokens": "tokns"}),
            "'tokens' is missing; did you mean 'tokns'",
        ),
        (lambda f: f.loc.__setitem__((2, "loss"), "abc"), "'loss' is not a number in row 3 .'abc'"),
        (lambda f: f.loc.__setitem__((2, "loss"), float("nan")), "'loss' is missing .* in row 3"),
        (lambda f: f.loc.__setitem__((0, "loss"), -2.0), "'loss' must be above zero in row 1"),
        (lambda f: f.loc.__setitem__((0, "params"), 0), "'params' must be above zero in row 1"),
        (lambda f: f.loc.__setitem__((1, "tokens"), float("inf")), "'tokens' is infinite in row 2"),
        (
            lambda f: f.loc.__setitem__((slice(None), "tokens"), 1e305),
            "'tokens' must lie within .* in 20 rows",
        ),
        (lambda f: f.__setitem__("weight", -1.0), "'weight' must not be negative in 20 rows"),
        (lambda f: f[:0], "has no rows"),
    ],
)
def test_bad_cells_are_told_of_by_column_and_row(change, message):
    with pytest.raises(UserError, match=message):
        fit_table(spoilt(change), {"law": "chinchilla"} | FAST)


ROWS = {
    # separator, the loss of the second row: what is said of it
    (
        ";",
        "3,5071",
    ): r"column 'loss' has a comma that marks no thousands in row 2 .'3,5071'.; write a d",
    (
        ";",
        "4,1",
    ): r"'loss' has a comma that marks no thousands in row 2 .'4,1'.; write a decimal point",
    (";", "0,512"): r"'loss' has a comma that marks no thousands in row 2 .'0,512'",
    (";", "4,123"): r"'loss' has a comma of two meanings in row 2 .'4,123'.; .*: 4\.123 or 4123",
    ("\t", "4,123"): r"'loss' has a comma of two meanings in row 2",
    (";", "4,123k"): r"'loss' has a comma of two meanings in row 2",
    (",", '"3,45"'): r"'loss' has a comma that marks no thousands in row 2 .'3,45'",
    (
        ",",
        "3,5071",
    ): r"more cells than the 3 columns in row 2 .'2e7,1e9,3,5071'.; write a decimal point",
    (",", "three"): r"'loss' is not a number in row 2 .'three'",
}


@pytest.mark.parametrize(("written", "message"), ROWS.items(), ids=str)
@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_a_decimal_comma_is_refused_wherever_a_cell_is_read(written, message, verb, tmp_path):
    mark, value = written
    lines = [("params", "tokens", "loss"), ("1e7", "1e9", "4.5"), ("2e7", "1e9", value)]
    if verb == "predict":  # the points have the cell in question among their tokens
        lines = [(params, loss, tokens) for params, tokens, loss in lines]
        lines[0] = ("params", "tokens", "name")
        message = message.replace("'loss'", "'tokens'").replace(",1e9,3,5071", ",3,5071,1e9")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(mark.join(line) for line in lines) + "\n")
    with pytest.raises(UserError, match=message):
        if verb == "fit":
            fit_verb.run("chinchilla", tmp_path / "fit.json", [path])
        else:
            fit = fit_table(table(), {"law": "chinchilla", "back_test": False} | FAST)
            predict_table(fit, table_file.read(path))
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("params;note\n1,000,000;x\n", 1e6),
        ("params;note\n12,345,678.5;x\n", 12345678.5),
        ('params,note\n"1,000",x,\n', 1e3),
        ("params\tnote\n2_000\tx\n", 2e3),
    ],
)
def test_thousands_are_read_in_any_table(written, meant, tmp_path):
    (tmp_path / "table.csv").write_text(written)
    frame = table_file.read(tmp_path / "table.csv")
    assert list(runs_table.checked(frame, ["params"])["params"]) == [meant]


def test_what_a_law_does_not_read_may_hold_any_comma(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("params;note\n1e7;4,123\n2e7;0,5\n")
    assert len(runs_table.checked(table_file.read(path), ["params"])) == 2


def test_an_end_of_the_accuracy_is_read_as_other_cells_are():
    frame = table().assign(chance="0,25")
    with pytest.raises(UserError, match="'chance' has a comma that marks no thousands in 20 rows"):
        fit_table(frame, {"law": "direct"} | FAST)


@pytest.mark.parametrize("law", ["chinchilla", "isoflop"])
def test_a_point_with_an_empty_cell_is_told_what_predict_can_do(law):
    frame = isoflops()
    fit = fit_table(frame, {"law": law, "back_test": False} | FAST)
    name = "flops" if law == "isoflop" else "tokens"
    frame.loc[3, name] = np.nan
    with pytest.raises(
        UserError, match=rf"'{name}' is missing .* in row 4; .*take such rows"
    ) as said:
        predict_table(fit, frame)
    assert "leave-out" not in str(said.value)


def test_points_with_a_weight_are_all_predicted():
    fit = fit_table(table(), {"law": "chinchilla", "back_test": False} | FAST)
    said = predict_table(fit, table()[:4].assign(weight=[0.0, np.nan, 1.0, 2.0]))
    assert len(said) == 4 and said["point"].notna().all()


@pytest.mark.parametrize(
    ("law", "columns"),
    [
        ("envelope", {"params": 1e8, "tokens": 1e9, "flops": 6e17}),
        ("chinchilla", {"params": 1e8, "tokens": 1e9, "task_loss": 1.0, "flops_total": 1e18}),
    ],
)
def test_no_other_quantity_is_taken_for_a_missing_column(law, columns):
    with pytest.raises(UserError, match="'loss' is missing; columns there: flops") as said:
        fit_table(pd.DataFrame(columns, index=[0]), law)
    assert "did you mean" not in str(said.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("chinchila", "did you mean 'chinchilla'"),
        ('{"law": "chinchilla", "dleta": 1}', "'dleta'; did you mean 'delta'"),
        ('{"law": "chinchilla", "delta": -1}', "delta"),
        ('{"law": "chinchilla", ', "no JSON"),
        ('{"delta": 1}', "law: is missing"),
        ("[1]", "unknown law"),
    ],
)
def test_bad_specs_are_told_of(spec, message, tmp_path):
    table().to_csv(tmp_path / "runs.csv")
    with pytest.raises(UserError, match=message):
        fit_verb.run(spec, tmp_path / "fit.json", [tmp_path / "runs.csv"])


def test_bad_files_are_told_of(tmp_path):
    table().to_csv(tmp_path / "runs.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "not.parquet").write_text("no")
    (tmp_path / "folder").mkdir()
    for name in ("absent.csv", "empty.csv", "not.parquet", "folder"):
        with pytest.raises(UserError, match=name):
            fit_verb.run("chinchilla", tmp_path / "fit.json", [tmp_path / name])
    with pytest.raises(UserError, match=r"folder: cannot be written"):
        fit_verb.run(
            json.dumps({"law": "chinchilla"} | FAST), tmp_path / "folder", [tmp_path / "runs.csv"]
        )
    for content in ("no json", "[]", "{}"):
        (tmp_path / "fit.json").write_text(content)
        with pytest.raises(UserError, match=r"fit\.json"):
            predict_verb.run(
                str(tmp_path / "fit.json"), tmp_path / "o.csv", [tmp_path / "runs.csv"]
            )
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda f: f[:5], "too-few-points"),
        (lambda f: pd.concat([f[:5]] * 4), "too-few-points"),
        (
            lambda f: (
                f[f["params"] == f["params"][0]]
                .loc[lambda g: g.index.repeat(3)]
                .assign(tokens=lambda g: g["tokens"] * np.linspace(1, 1.3, len(g)))
            ),
            "ill-posed",
        ),
        (lambda f: f.assign(tokens=1e9), "too-few-points"),
        (lambda f: f.assign(loss=1 + 0.1 * np.log(f["params"])), "at-bounds"),
    ],
)
def test_tables_that_determine_nothing_have_a_status_and_no_numbers(change, status):
    fit = fit_table(change(table()), {"law": "chinchilla"} | FAST)
    json.dumps(fit, allow_nan=False)
    assert fit["status"] == status and fit["why"]
    entries = fit["parameters"].values()
    assert any(entry["value"] is None or entry["at_bound"] for entry in entries)
    if status == "too-few-points":
        assert all(entry["value"] is None for entry in entries)
        said = predict_table(fit, table())
        assert said["point"].isna().all() and (said["status"] == status).all()


def test_one_size_says_nothing_of_other_sizes_and_much_of_its_own():
    frame = pd.DataFrame({"params": 1e8, "tokens": np.geomspace(1e9, 1e11, 12)})
    frame["loss"] = 2.2 + 2100 / frame["tokens"] ** 0.37
    fit = fit_table(frame, {"law": "chinchilla"} | FAST)
    assert fit["status"] == "ill-posed"
    assert fit["parameters"]["alpha"]["unbounded"] == ["low", "high"]
    assert fit["parameters"]["beta"]["value"] == pytest.approx(0.37, abs=1e-4)
    said = predict_table(fit, pd.DataFrame({"params": [1e8, 2e8], "tokens": [3e11, 3e11]}))
    assert said["point"][0] == pytest.approx(2.2 + 2100 / 3e11**0.37, rel=1e-4)
    assert np.isnan(said["point"][1]) and np.isinf(said["high_95"][1])


def without(effect: str, noise: float = 0.004) -> pd.DataFrame:
    """Runs whose loss one of size and tokens has no effect on."""
    frame = table()
    random = np.random.default_rng(0)
    terms = {"params": 480 / frame["params"] ** 0.35, "tokens": 2100 / frame["tokens"] ** 0.37}
    del terms[effect]
    return frame.assign(
        loss=(1.8 + sum(terms.values())) * np.exp(random.normal(0, noise, len(frame)))
    )


@pytest.mark.parametrize(
    ("effect", "gone"), [("params", ("A", "alpha")), ("tokens", ("B", "beta"))]
)
def test_where_a_term_vanished_no_split_is_determined(effect, gone):
    fit = fit_table(without(effect, noise=0.0), {"law": "chinchilla"} | FAST)
    assert fit["status"] == "at-bounds"
    assert any(fit["parameters"][name]["value"] == pytest.approx(0, abs=1e-9) for name in gone)
    nothing = dict.fromkeys(("value", "standard_error", "low", "high", "covered"))
    assert set(fit["derived"]) == {"a", "b"}
    said = [*fit["derived"].values()]
    said += [entry[n] for entry in fit["allocation"] for n in ("params", "tokens_per_param")]
    for entry in said:
        assert entry == nothing | {"unbounded": ["low", "high"], "at_bound": False}
    assert all(entry["loss"] is None for entry in fit["allocation"])
    rows = {row["name"]: row for row in lawtext.told(fit)["rows"]}
    assert rows["a"]["value"] == "not determined" and rows["a"]["interval"] == show.NOTHING


def test_draws_without_a_term_open_the_interval_of_the_split():
    fit = fit_table(without("params"), {"law": "chinchilla"} | FAST)
    draws = [without_a_term(draw) for draw in fit["predict"]["draws"]]
    assert np.mean(draws) > 0.05  # more than the tail of 90 %
    a = fit["derived"]["a"]
    assert a["low"] is None and a["high"] is None and a["unbounded"] == ["low", "high"]
    assert {row["name"]: row for row in lawtext.told(fit)["rows"]}["a"]["interval"] == show.NOTHING
    assert fit["allocation"][0]["params"]["unbounded"] == ["low"]  # the smaller, the better


def without_a_term(draw: list[float]) -> bool:
    """A draw is E, log A', log B', alpha, beta; a coefficient is at e^-16 of the loss at least."""
    return min(draw[3:]) < 1e-5 or min(draw[1:3]) < -14


def test_copies_of_a_row_are_no_evidence():
    frame = table()
    once = fit_table(frame, {"law": "chinchilla"} | FAST)
    thrice = fit_table(pd.concat([frame] * 3), {"law": "chinchilla"} | FAST)
    assert thrice["parameters"] == once["parameters"]
    assert len(thrice["points_left_out"]) == 2 * len(frame)


def test_rows_without_a_loss_can_be_left_out_by_asking():
    frame = table()
    frame.loc[3, "loss"] = np.nan
    fit = fit_table(frame, {"law": "chinchilla", "missing": "leave-out"} | FAST)
    assert fit["points_left_out"] == [{"row": 4, "why": "loss is missing"}]
    assert len(fit["points_used"]) == len(frame) - 1


def test_weights_count_as_repetitions():
    frame = table()
    frame["weight"] = np.where(np.arange(len(frame)) < 4, 0.0, 1.0)
    weighted = fit_table(frame, {"law": "chinchilla"} | FAST)
    without = fit_table(frame[4:].drop(columns="weight"), {"law": "chinchilla"} | FAST)
    assert weighted["objective"] == pytest.approx(without["objective"], rel=1e-9)
    doubled = fit_table(table().assign(weight=2.0), {"law": "chinchilla"} | FAST)
    single = fit_table(table(), {"law": "chinchilla"} | FAST)
    assert doubled["objective"] == pytest.approx(2 * single["objective"], rel=1e-9)
