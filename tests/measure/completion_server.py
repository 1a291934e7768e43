"""A server that speaks what a vLLM server speaks, run where LLAMA_BENCH_VLLM names a python.

It computes nothing: it answers requests for completions in the documented form, and notes what it
was asked. So it tests the client and the protocol, not vLLM.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOTES = "COMPLETION_SERVER_NOTES"  # environment: the file that requests are noted in
# environment: memory, start, count, fail, break, merge (each sequence's tokens come in one event),
# hitch (only those of the first answer do) or mute (events do not say how many they hold)
FAULT = "COMPLETION_SERVER_FAULT"
# as vLLM reports what happens in one of its processes, and then in who waited for that one
FAILURE = """\
(EngineCore pid=7) ERROR 11-22 11:39:07 [core.py:1] RuntimeError: no kernel for this width
(APIServer pid=6) vllm.exceptions.EngineDeadError: EngineCore encountered an issue."""


def note(**content) -> None:
    with open(os.environ[NOTES], "a") as notes:
        notes.write(json.dumps(content) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._head("text/plain", 0, status=200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(path=self.path, **asked)
        if os.environ.get(FAULT) == "break":
            os._exit(1)
        if os.environ.get(FAULT) == "fail":
            print(FAILURE, file=sys.stderr, flush=True)
            return self._answer({"error": {"message": "see above"}}, status=500)
        prompts, tokens = asked["prompt"], asked["max_tokens"]
        if max(map(len, prompts)) + tokens > self.server.room:
            return self._answer({"error": {"message": "longer than max-model-len"}}, status=400)
        usage = {
            "prompt_tokens": sum(map(len, prompts)),
            "completion_tokens": tokens * len(prompts) - (os.environ.get(FAULT) == "count"),
        }
        if asked["stream"]:
            self._stream(asked, usage)
        else:
            self._answer({"choices": [], "usage": usage})

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self._head("application/json", len(body), status)
        self.wfile.write(body)

    def _stream(self, asked: dict, usage: dict) -> None:
        """Of a sequence a token at a time, or all; `usage` of an event is its sequence's so far."""
        self._head("text/event-stream", None)
        fault, tokens = os.environ.get(FAULT), asked["max_tokens"]
        merges = fault == "merge" or (fault == "hitch" and not self.server.has_streamed)
        self.server.has_streamed = True
        counts = asked["stream_options"].get("continuous_usage_stats") and fault != "mute"
        for held in [tokens] if merges else range(1, tokens + 1):
            for index, prompt in enumerate(asked["prompt"]):
                event = {"choices": [{"index": index, "text": " 1"}]}
                so_far = {"prompt_tokens": len(prompt), "completion_tokens": held}
                self._event(event | ({"usage": so_far} if counts else {}))
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, content: dict) -> None:
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")
        self.wfile.flush()

    def _head(self, kind: str, length: int | None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def main(words: list[str]) -> None:
    if words[0] == "-c":  # which version is installed?
        print("0.0.test")
        return
    note(pid=os.getpid(), words=words, threads=os.environ.get("OMP_NUM_THREADS"))
    if os.environ.get(FAULT) == "memory":
        sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    if os.environ.get(FAULT) == "start":
        print("(EngineCore pid=7) ERROR 11-22 11:39:07 [core.py:1] ValueError: no such model")
        sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
    port = int(words[words.index("--port") + 1])
    listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    listening.has_streamed = False
    listening.room = int(words[words.index("--max-model-len") + 1])
    listening.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
