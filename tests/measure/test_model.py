"""Models: counted on their real weights, equal for equal seeds, loadable by others, or refused."""

import json
import shutil
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path

import hub_server
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from llama_bench.measure import model
from llama_bench.records import Refusal
from llama_bench.shape import Shape, shape_of_size

PRETRAINED = Path(__file__).parents[3] / "shared" / "models"
VOCAB, CONTEXT = 512, 64
SHAPES = {
    "tied": Shape(layers=2, width=32, heads=4),
    "untied": Shape(layers=2, width=32, heads=4, tied_embeddings=False),
    "grouped-query": Shape(layers=3, width=64, heads=8, kv_heads=2, ffn_width=160),
    "multi-query, untied": Shape(layers=1, width=48, heads=6, kv_heads=1, tied_embeddings=False),
    "of a size": shape_of_size(300_000),
}


def pretrained(name: str) -> Path:
    folder = PRETRAINED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the real pretrained Llamas lie beside the project")
    return folder


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_real_weights_count_what_the_shape_says(shape):
    assert model.count(model.build(shape, VOCAB, CONTEXT, 0)) == shape.parameters(VOCAB)


@pytest.mark.parametrize(
    ("name", "everything", "without"),
    [("stories260K", 260_032, 227_264), ("stories3M", 3_148_224, 2_361_792)],
)
def test_pretrained_llamas_count_what_their_authors_say(name, everything, without):
    loaded = model.load(pretrained(name))
    counted = model.count(loaded)
    assert (counted["all"], counted["without_embeddings"]) == (everything, without)
    config = loaded.config
    shape = Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        ffn_width=config.intermediate_size,
        tied_embeddings=config.tie_word_embeddings,
    )
    assert counted == shape.parameters(config.vocab_size)


def weights(built) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in built.state_dict().items()}


def test_weights_depend_on_the_seed_alone():
    shape = SHAPES["grouped-query"]
    torch.manual_seed(1)
    first = model.build(shape, VOCAB, CONTEXT, 7)
    drawn_after = torch.rand(3)
    torch.manual_seed(2)
    torch.rand(100)
    assert weights(model.build(shape, VOCAB, CONTEXT, 7)) == weights(first)
    assert weights(model.build(shape, VOCAB, CONTEXT, 8)) != weights(first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn_after), "building drew from the global generator"


def test_spread_of_weights():
    """Standard deviation 0.02, and 0.02 / sqrt(2 x layers) where the residual stream is written."""
    shape = Shape(layers=8, width=128, heads=4, tied_embeddings=False)
    for name, weight in model.build(shape, VOCAB, CONTEXT, 0).named_parameters():
        if weight.dim() == 1:
            assert (weight == 1).all(), name
            continue
        writes = "o_proj" in name or "down_proj" in name
        assert weight.std().item() == pytest.approx(0.005 if writes else 0.02, rel=0.03), name


def test_saved_folder_is_any_tools_model(tmp_path):
    from transformers import AutoModelForCausalLM

    built = model.build(SHAPES["grouped-query"], VOCAB, CONTEXT, 0, bos_token_id=3)
    model.save(built, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert weights(loaded) == weights(built) == weights(model.load(tmp_path))
    assert (loaded.config.bos_token_id, loaded.config.eos_token_id) == (3, 3)
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, built.eval()(ids).logits)


def test_untrained_loss_is_that_of_a_uniform_guess():
    built = model.build(SHAPES["of a size"], VOCAB, CONTEXT, 0)
    ids = torch.randint(VOCAB, (8, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = built(ids, labels=ids).loss
    assert loss.item() == pytest.approx(torch.tensor(VOCAB).log().item(), rel=0.03)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save(model.build(SHAPES["tied"], VOCAB, CONTEXT, 0), folder)
    return folder


def refusal(folder: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        model.load(folder)
    assert "\n" not in caught.value.reason
    assert str(folder) in caught.value.reason
    return caught.value


def damaged(saved: Path, tmp_path: Path, **config) -> Path:
    folder = shutil.copytree(saved, tmp_path / "damaged")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_no_folder_and_no_config_are_missing(tmp_path):
    assert refusal(tmp_path / "nowhere").status == "missing"
    assert refusal(tmp_path).status == "missing"


def test_config_without_weights_is_missing(saved, tmp_path):
    folder = damaged(saved, tmp_path)
    (folder / "model.safetensors").unlink()
    assert refusal(folder).status == "missing"


def test_unknown_architecture_is_refused(saved, tmp_path):
    refused = refusal(damaged(saved, tmp_path, model_type="wombat"))
    assert refused.status == "refused"
    assert "wombat" in refused.reason


def test_weights_that_are_none_are_refused(saved, tmp_path):
    folder = damaged(saved, tmp_path)
    (folder / "model.safetensors").write_bytes(b"a picture of a llama")
    assert refusal(folder).status == "refused"


def test_weights_of_another_shape_are_refused(saved, tmp_path):
    refused = refusal(damaged(saved, tmp_path, intermediate_size=64))
    assert refused.status == "refused"
    assert "model.layers.0.mlp.down_proj.weight ([" in refused.reason
    assert refusal(damaged(saved, tmp_path / "wide", hidden_size=64)).status == "refused"


def test_weights_that_lack_a_matrix_are_refused(saved, tmp_path):
    """transformers goes on with random numbers in its place, and only warns."""
    folder = damaged(saved, tmp_path)
    kept = load_file(folder / "model.safetensors")
    del kept["model.layers.1.mlp.up_proj.weight"]
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder).reason


def test_weights_of_more_layers_than_the_config_has_are_refused(saved, tmp_path):
    """transformers goes on without them; what newer code makes itself is not missed."""
    refused = refusal(damaged(saved, tmp_path, num_hidden_layers=1))
    assert refused.status == "refused"
    assert "model.layers.1.input_layernorm.weight" in refused.reason
    folder = damaged(saved, tmp_path / "old")
    kept = load_file(folder / "model.safetensors")
    kept["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert model.load(folder).config.num_hidden_layers == 2


@pytest.mark.parametrize(("method", "package"), [("gptq", "optimum"), ("awq", "gptqmodel")])
def test_a_quantized_model_whose_package_is_not_there_is_refused(saved, tmp_path, method, package):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    asked = {"quant_method": method, "bits": 4, "group_size": 128}
    refused = refusal(damaged(saved, tmp_path, quantization_config=asked))
    assert refused.status == "refused" and package in refused.reason


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does: the repository's name says how."""

    def do_HEAD(self):
        name = self.path.split("/")[2]
        errors = {"gated": "GatedRepo", "gone": "RepoNotFound", "old": "RevisionNotFound"}
        self.send_response(401 if name == "gated" else 404)
        self.send_header("X-Error-Code", errors.get(name, "EntryNotFound"))
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with hub_server.in_its_place(Hub, monkeypatch) as server:
        yield server


@pytest.mark.parametrize(
    ("repo", "status", "word"),
    [
        ("llamas/gated", "refused", "gated"),
        ("llamas/gone", "missing", "no repository"),
        ("llamas/old", "missing", "no revision v2"),
        ("llamas/empty", "missing", "no config.json"),
        ("not a/repository/name", "missing", "no repository"),
    ],
)
def test_what_the_hub_answers_is_a_result(hub, repo, status, word):
    with pytest.raises(Refusal) as caught:
        model.fetched(repo, "v2")
    assert caught.value.status == status
    assert word in caught.value.reason
    assert "\n" not in caught.value.reason


def test_a_hub_out_of_reach_is_an_accident(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError):
        model.fetched("llamas/gone", "v2")
