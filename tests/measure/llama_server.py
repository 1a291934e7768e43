"""A server that answers requests for completions with a real Llama, in vLLM's words.

Run where LLAMA_BENCH_VLLM names a python. Slow and plain: one prompt at a time, no batches, so its
numbers rest on nothing that they are compared with.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        longest = max(map(len, asked["prompt"])) + asked["max_tokens"]
        if longest > self.server.room:
            return self._answer({"error": f"{longest} tokens, room for {self.server.room}"}, 400)
        choices = [self._choice(n, prompt, asked) for n, prompt in enumerate(asked["prompt"])]
        self._answer({"choices": choices[::-1]})  # in any order: `index` tells which is which

    @torch.inference_mode()
    def _choice(self, index: int, prompt: list[int], asked: dict) -> dict:
        model, tokenizer = self.server.model, self.server.tokenizer
        choice = {"index": index, "text": ""}
        if asked.get("prompt_logprobs") is not None:
            table = torch.log_softmax(model(torch.tensor([prompt])).logits[0], dim=-1)
            choice["prompt_logprobs"] = [None]
            for row, token in zip(table, prompt[1:], strict=False):
                rank = int((row > row[token]).sum()) + 1
                told = {"logprob": row[token].item(), "rank": rank, "decoded_token": ""}
                choice["prompt_logprobs"].append({str(token): told})
            return choice
        settings = {"repetition_penalty": asked.get("repetition_penalty", 1.0)}
        if asked["temperature"]:
            drawn = {key: asked[key] for key in ("top_k", "top_p", "min_p") if key in asked}
            settings |= {"do_sample": True, "temperature": asked["temperature"], **drawn}
            settings["top_k"] = max(0, settings.get("top_k", 0))  # -1 and 0: of all tokens
        out = model.generate(torch.tensor([prompt]), max_new_tokens=asked["max_tokens"], **settings)
        whole, head = (tokenizer.decode(i, skip_special_tokens=True) for i in (out[0], prompt))
        text, stops = whole[len(head) :], asked["stop"] or ()
        ended = tokenizer.eos_token_id in out[0, len(prompt) :] or any(s in text for s in stops)
        for stop in stops:
            text = text.split(stop)[0]
        return {**choice, "text": text, "finish_reason": "stop" if ended else "length"}

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(words: list[str]) -> None:
    if words[0] == "-c":  # which version is installed?
        print("0.0.test")
        return
    given = dict(pairwise(words))
    server = ThreadingHTTPServer(("127.0.0.1", int(given["--port"])), Handler)
    server.model = AutoModelForCausalLM.from_pretrained(given["--model"]).eval()
    server.tokenizer = AutoTokenizer.from_pretrained(given["--model"])
    server.room = int(given["--max-model-len"])
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
