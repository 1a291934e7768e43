"""Bad input: one readable message that names the key, before any job starts."""

import json

import pytest

from llama_bench.sections.fit import LAW_NEEDS
from llama_bench.study import UserError, load

ONE = {"train": [{"size": "50k"}]}
FIT = {"horizon": "500k"}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    (tmp_path / "other.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "short.txt").write_text("hello world\n" * 200)
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text("{}")
    (tmp_path / "twice.yaml").write_text("study: a\nmodels: {train: [{size: 50k}]}\nstudy: b\n")
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    return tmp_path


def refused(given: dict) -> str:
    with pytest.raises(UserError) as caught:
        load(given)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"models": ONE, "trian": {}}, ["'trian'", "'train'"]),
        ({"models": {"train": [{"sise": "3M"}]}}, ["models.train[0]", "'sise'", "'size'"]),
        ({"models": {"train": [{"size": "3 MB"}]}}, ["models.train[0].size", "3 MB", "0.5M"]),
        ({"models": {"train": [{"size": "3M"}, {"size": 3_000_000}]}}, ["models", "'3M'", "name"]),
        ({"models": {"train": [{"name": "a/b", "size": "3M"}]}}, ["models.train[0].name", "'a/b'"]),
        ({"models": {"train": [{"name": "a b", "size": "3M"}]}}, ["models.train[0].name", "'a b'"]),
        (
            {"models": {"train": [{"layers": 2, "width": 100, "heads": 3}]}},
            ["models.train[0]", "heads", "3 does not divide the width 100"],
        ),
        ({"models": {"train": [{"layers": 2, "width": 100}]}}, ["models.train[0]", "heads"]),
        (
            {"models": {"train": [{"size": "3M"}, {"name": "twin", "size": "3M"}]}},
            ["models", "'3M'", "'twin'", "same"],
        ),
        ({"models": {}}, ["models", "train:", "pretrained:"]),
        ({"models": None}, ["models", "group of keys"]),
        (
            {
                "models": ONE,
                "train": FIT,
                "evaluate": {"suites": {"e": {"tasks": ["arc_easy"], "versions": {"arc_easy": 7}}}},
            },
            ["evaluate.suites.e.versions", "arc_easy", "7"],
        ),
        (
            {
                "models": ONE,
                "train": FIT,
                "evaluate": {"suites": {"e": {"tasks": ["heldout"], "versions": {"arc_esay": 1}}}},
            },
            ["evaluate.suites.e.versions", "'arc_esay'", "'arc_easy'"],
        ),
        (
            {"models": ONE, "evaluate": {"suites": {"e": {"versions": {"arc_easy": [1]}}}}},
            ["evaluate.suites.e.versions.arc_easy", "text"],
        ),
        ({"models": ONE, "train": {"budgets": "many"}}, ["train.budgets", "list"]),
        ({"models": ONE, "train": {"budgets": ["1M", "1e6"]}}, ["train.budgets", "twice"]),
        ({"models": ONE, "train": {"budgets": []}}, ["train.budgets"]),
        (
            {"models": ONE, "train": {"budgets": ["10k"]}},
            ["train", "50928 warmup_tokens", "horizon"],
        ),
        (
            {"models": ONE, "train": {"budgets": {"flops": [1e9]}, "warmup_tokens": 0}},
            ["train.budgets.flops", "1e+09", "'50k'", "one step"],
        ),
        ({"train": {"budgets": {"flops": [1e12], "sizes": 3}}}, ["train.budgets", "'sizes"]),
        ({"train": {"budgets": {"flops": []}}}, ["train.budgets.flops"]),
        ({"models": ONE, "train": {"sweep": {"factors": [1]}}}, ["train.sweep.factors", "two"]),
        (
            {"models": ONE, "train": {"sweep": {}, "learning_rate": 1e-3}},
            ["train", "sweep", "learning_rate"],
        ),
        ({"models": ONE, "train": {"sweep": {}, "sensitivity": True}}, ["train", "sensitivity"]),
        (
            {"models": ONE, "train": {"schedule": "cosine", "horizon": "1M"}},
            ["train", "horizon", "cosine"],
        ),
        ({"models": ONE, "train": {"schedule": "cos"}}, ["train.schedule", "cosine"]),
        ({"models": ONE, "data": {"clean": ["unicod"]}}, ["data.clean[0]", "unicode"]),
        ({"models": ONE, "data": {"clean": ["length", "length"]}}, ["data", "clean", "twice"]),
        (
            {"models": ONE, "data": {"max_bytes": "1M", "unique_tokens": "2M"}},
            ["data", "unique_tokens", "2000000", "1000000 bytes"],
        ),
        (
            {"models": ONE, "data": {"variants": [{"name": "a", "unique_tokens": 100}]}},
            ["unique_tokens", "100", "256"],
        ),
        ({"models": ONE, "data": {"variants": [{}]}}, ["data.variants[0].name", "missing"]),
        (
            {"models": ONE, "data": {"variants": [{"name": "a"}, {"name": "a"}]}},
            ["data.variants", "'a'"],
        ),
        (
            {"models": ONE, "data": {"variants": [{"name": "a", "corpus": "python-pakages"}]}},
            ["data", "variants.a.corpus", "'python-packages'"],
        ),
        (
            {"models": ONE, "train": FIT, "data": {"variants": [{"name": "a", "models": ["51k"]}]}},
            ["data.variants.a.models", "'50k'"],
        ),
        ({"models": ONE, "data": {"corpus": {"repo": "a/b"}}}, ["data.corpus", "revision"]),
        ({"models": ONE, "data": {"tokenizer": {"path": "/not/there"}}}, ["data.tokenizer"]),
        (
            {"models": ONE, "train": FIT, "fit": {"laws": ["isoflop"]}},
            ["fit.laws", "isoflop", "flops"],
        ),
        (
            {"models": ONE, "train": FIT, "fit": {"laws": ["data_constrained"]}},
            ["fit.laws", "unique_tokens", "variants"],
        ),
        ({"models": ONE, "train": {"seeds": [0, 0]}}, ["train.seeds"]),
        ({"models": ONE, "train": {"learning_rate": "fast"}}, ["train.learning_rate", "'fast'"]),
        ({"models": ONE, "train": {"precision": "fp8"}}, ["train.precision", "float32"]),
        (
            {"models": ONE, "train": {"learning_rate": -1}},
            ["train.learning_rate: -1 is too small", "above 0, such as 1e-3"],
        ),
        ({"models": ONE, "train": {"clip": "-0.5"}}, ["train.clip: -0.5 ", "above 0"]),
        ({"models": ONE, "train": {"batch": 0}}, ["train.batch: 0 is too small; write 1 or more"]),
        ({"models": ONE, "train": {"context": 1}}, ["train.context: 1 ", "write 2 or more"]),
        ({"models": ONE, "train": {"betas": [0.9, 1.2]}}, ["train.betas[1]: 1.2 ", "below 1"]),
        ({"models": ONE, "train": {"betas": [0, 0, 0]}}, ["train.betas: holds 3 values; give 2"]),
        ({"models": ONE, "train": {"betas": 0.9}}, ["train.betas: should be a list"]),
        ({"models": ONE, "data": {"held_out": 0.5}}, ["data.held_out: 0.5 ", "0.4 or less"]),
        ({"models": ONE, "probe": {"seconds": "5s"}}, ["probe.seconds: '5s' ", "5, 0.5 or 3e-4"]),
        ({"models": ONE, "probe": {"seconds": -1}}, ["probe.seconds: -1 ", "0 or more"]),
        ({"models": ONE, "train": {"gpus": "two"}}, ["train.gpus: 'two' ", "8, 250k"]),
        (
            {"models": {"train": [{"layers": 0, "width": 32, "heads": 2}]}},
            ["models.train[0].layers: 0 ", "1 or more"],
        ),
        (
            {"models": ONE, "evaluate": {"suites": {"a b": {}}}},
            ["evaluate.suites.a b: 'a b' cannot be a name"],
        ),
        ({"models": ONE, "train": {"decay_share": 1.5}}, ["train.decay_share"]),
        ({"models": ONE, "data": {"corpus": "python-stdlb"}}, ["data", "'python-stdlib'"]),
        ({"models": ONE, "data": {"max_bytes": "2k"}}, ["train.context", "256"]),
        ({"models": {"pretrained": [{"repo": "a/b"}]}}, ["models.pretrained[0]", "revision"]),
        ({"models": {"pretrained": [{}]}}, ["models.pretrained[0]", "path", "repo"]),
        (
            {"models": ONE, "evaluate": {"suites": {"x": {"tasks": ["heldout_next_lin"]}}}},
            ["evaluate.suites.x.tasks", "'heldout_next_lin'", "'heldout_next_line'"],
        ),
        (
            {"models": ONE, "evaluate": {"suites": {"x": {"include": "/not/there"}}}},
            ["evaluate.suites.x", "include", "/not/there"],
        ),
        ({"models": ONE, "fit": {"laws": ["chinchila"]}}, ["fit.laws", "'chinchilla'"]),
        ({"models": ONE, "fit": {"laws": ["chinchilla"]}}, ["fit.laws", "needs", "sizes"]),
        ({"models": ONE, "probe": {"batches": [0]}}, ["probe.batches"]),
        ({"models": ONE, "study": "../x"}, ["study", "'../x'"]),
        ({"models": ONE, "study": "x-partial"}, ["study", "partial"]),
    ],
)
def test_a_wrong_key_is_named(given, says):
    message = refused(given)
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty.txt", "is empty"),
        ("binary.txt", "binary"),
        ("other.jsonl", "keys: body"),
        ("short.txt", "train.context"),
        ("table.csv", "none of"),
        ("nothing", "is a folder without"),
        ("absent.txt", "is not there"),
    ],
)
def test_a_corpus_that_is_none_is_named(files, name, says):
    message = refused({"models": ONE, "data": {"corpus": str(files / name)}})
    assert says in message
    assert name in message or says == "train.context"


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing", "no config.json"), ("weightless", "no weights"), ("absent", "is no folder")],
)
def test_a_folder_without_a_model_is_named(files, name, says):
    message = refused({"models": {"pretrained": [{"path": str(files / name)}]}})
    assert "models.pretrained[0]" in message
    assert says in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.yaml", "cannot be read"),
        ("twice.yaml", "'study' stands there twice"),
        ("broken.yaml", "is no YAML"),
        ("list.yaml", "should hold keys"),
    ],
)
def test_a_configuration_that_is_none_is_named(files, name, says):
    message = refused({"file": str(files / name)})
    assert name in message
    assert says in message


def test_an_unreadable_corpus_is_named(files):
    path = files / "closed.txt"
    path.symlink_to(path)  # a loop: nobody can read it, not even root
    assert "closed.txt" in refused({"models": ONE, "data": {"corpus": str(path)}})


def test_an_unknown_lm_eval_task_is_found_before_any_job():
    suites = {"x": {"tasks": ["arc_eesy"]}}
    message = refused({"models": ONE, "evaluate": {"suites": suites}})
    assert "'arc_eesy'" in message
    assert "'arc_easy'" in message
    suites = {"x": {"tasks": ["arc_easy", "mmlu"]}}
    assert load({"models": ONE, "evaluate": {"suites": suites}}).runs


def test_several_mistakes_are_told_at_once():
    with pytest.raises(UserError) as caught:
        load({"models": {"train": [{"size": "x"}]}, "train": {"clip": "y"}})
    assert {"models.train[0].size", "train.clip"} <= {
        line.split(": ")[1] for line in str(caught.value).splitlines()
    }


def test_usual_spellings_make_one_study():
    spellings = [("1M", "2e6"), ("1_000_000", "2M"), (1_000_000, "2,000,000")]
    studies = [
        load({"models": {"train": [{"size": s}]}, "train": {"budgets": [b]}}) for s, b in spellings
    ]
    assert len({frozenset(study.runs) for study in studies}) == 1


def test_the_default_study_is_the_one_that_was_promised(repository, monkeypatch):
    monkeypatch.chdir(repository)
    study = load()
    sizes = sorted({model.shape.size for model in study.config.models.train})
    assert len(sizes) >= 5
    assert sizes[-1] / sizes[0] >= 10**1.5 * 0.98
    assert len(study.config.train.budgets) >= 3
    assert study.laws == ["chinchilla", "direct", "two_step"]


def test_what_laws_need_is_more_than_their_parameters():
    from llama_bench.derive.fitting import families

    for law, need in LAW_NEEDS.items():
        family, settings = families.known({"law": law})
        if family.method is not None:
            assert need.runs > len(family.method(settings).last.parameter_names)


def test_the_schema_is_that_of_the_types(repository, tmp_path):
    from llama_bench.config_file import write_schema

    write_schema(tmp_path / "schema.json")
    written = (repository / "workflow" / "config.schema.json").read_text()
    assert (tmp_path / "schema.json").read_text() == written


def test_every_key_is_described_in_the_schema(repository):
    schema = json.loads((repository / "workflow" / "config.schema.json").read_text())
    for name, section in {"study": schema, **schema["$defs"]}.items():
        for key, told in section.get("properties", {}).items():
            assert told.get("description") or "$ref" in told, f"{name}.{key}"


def test_what_may_be_written_is_in_the_schema():
    from llama_bench.config_file import Config
    from llama_bench.sections.generation import LENGTHS

    known = Config.model_json_schema()["$defs"]["Generation"]["properties"]
    assert set(LENGTHS) <= set(known)


def test_data_files_that_a_task_will_not_find_are_named(tmp_path, monkeypatch):
    """Relative paths are those of lm-eval: below the directory of the study, not the task's."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    (folder / "all.yaml").write_text("group: all\ntask: [{group: inner, task: [few]}]\n")
    task = "task: mine\ntag: few\ndataset_path: json\n"
    task += "dataset_kwargs: {data_files: {test: [rows.jsonl]}}\n"
    (folder / "mine.yaml").write_text(task)
    (folder / "other.yaml").write_text("task: other\n")

    def given(name):
        suite = {"tasks": [name], "include": str(folder)}
        return {"models": ONE, "train": FIT, "evaluate": {"suites": {"x": suite}}}

    monkeypatch.chdir(tmp_path)
    for name in ("mine", "few", "all"):
        message = refused(given(name))
        for words in ("evaluate.suites.x.include", "mine.yaml", "data_files", "rows.jsonl"):
            assert words in message
        assert f"the one from the study's directory ({tmp_path})" in message
    assert load(given("other")).runs, "only what is asked for has to be there"
    for written in (folder / "rows.jsonl", "own/rows.jsonl", "own/*.jsonl", "hf://some/rows.jsonl"):
        (folder / "mine.yaml").write_text(task.replace("rows.jsonl", str(written)))
        assert load(given("all")).runs


def test_a_task_file_that_is_none_is_named_by_its_suite(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: [mine\n")
    suites = {"x": {"tasks": ["mine"], "include": str(tmp_path)}}
    message = refused({"models": ONE, "train": FIT, "evaluate": {"suites": suites}})
    assert "evaluate.suites.x.include: " in message and "mine.yaml is no YAML" in message


def test_a_path_from_home_is_what_the_job_is_given(tmp_path, monkeypatch):
    """Snakemake and the shell leave a quoted ~ as it is, so it must not get that far."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "task.yaml"):
        (tmp_path / name).write_text("task: own" if name == "task.yaml" else "{}")
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 299}}}')
    study = load(
        {
            "models": {**ONE, "pretrained": [{"name": "mine", "path": "~"}]},
            "data": {"tokenizer": {"path": "~"}},
            "train": FIT,
            "evaluate": {"suites": {"x": {"tasks": ["own"], "include": "~"}}},
        }
    )
    told = {path for run in study.runs.values() for path in run.inputs if "record" not in path}
    assert told == {str(tmp_path)}
