"""A Llama small enough to be checked by hand, with the tokenizer of the small corpus."""

import shutil

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_bench.measure import model
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.shape import Shape

SHAPE = Shape(layers=2, width=32, heads=4, kv_heads=2)
CONTEXT = 512


def checkpoint(folder, prepared, seed=0, spread=4.0):
    """A tiny Llama with its tokenizer; wider weights than usual, so that answers differ."""
    built = model.build(SHAPE, 512, CONTEXT, seed)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() == 2:
                weight.mul_(spread)
    shutil.copytree(prepared.parent / "tokenizer", folder)
    model.save(built, folder)
    return folder


def adapter(folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return CausalLM(loaded, AutoTokenizer.from_pretrained(folder, local_files_only=True))
