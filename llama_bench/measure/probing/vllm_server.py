"""A vLLM server: found, started, asked over HTTP, ended.

vLLM pins other versions of torch and transformers than this project's, so it lives in an
environment of its own: LLAMA_BENCH_VLLM names that environment's python. It is spoken to as any
user would, by the OpenAI API's completions, but with token ids and exact counts: nothing ends
early, and what the server says that it counted is compared with what was asked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_bench.measure import process
from llama_bench.records import Refusal

PYTHON = "LLAMA_BENCH_VLLM"
# the last line of a traceback, behind the name of the process and the place of its report
_RAISED = re.compile(r"(?:\(.*?\) )?(?:ERROR .*?\] )?(?P<error>[\w.]*(?:Error|Exception): .*)")
START_SECONDS = 1800.0  # a large model from a slow disk, and its compilation
# of whichever distribution it comes in: builds for other devices have names of their own
_VERSION = """
from importlib.metadata import packages_distributions, version
print(version(packages_distributions()["vllm"][0]))
"""


def version() -> str:
    """The installed one. Raises Refusal, saying what to do, where there is none."""
    python = os.environ.get(PYTHON)
    advice = f"install it in an environment of its own and set {PYTHON} to that one's python"
    if not python:
        raise Refusal("refused", f"vllm is not installed: {advice}")
    try:
        asked = [python, "-c", _VERSION]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        reason = f"{PYTHON}={python} is no python that has vllm: {advice}"
        raise Refusal("refused", reason) from None
    return done.stdout.strip()


class Server:
    """`arguments` are vLLM's own, `threads` of a CPU those that it computes with. Started by
    `start`, or by `with`; both return when it answers."""

    def __init__(self, arguments: list[str], log: Path, threads: int | None = None):
        self._arguments, self._log, self._threads = arguments, log, threads
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()

    def start(self) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [os.environ[PYTHON], "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), *self._arguments]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | _threaded(self._threads),
                start_new_session=True,  # its workers end with it
                preexec_fn=process.die_with_parent,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise self._ended("did not start")
            with contextlib.suppress(OSError, http.client.HTTPException), self._connected(5) as to:
                to.request("GET", "/health")
                if to.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise Refusal("refused", f"vllm did not answer for {START_SECONDS:.0f} s; see {self._log}")

    def _ended(self, how: str) -> Refusal:
        """The first error in its log: those after it are of who waited for the one that failed."""
        lines = self._log.read_text(errors="replace").splitlines()
        errors = [found["error"] for line in lines if (found := _RAISED.match(line))]
        full = any("out of memory" in line.lower() for line in lines)
        status = "out-of-memory" if full else "refused"
        said = (errors[:1] or lines[-1:] or ["no word"])[0].strip()
        return Refusal(status, f"vllm {how}: {said} ({self._log})")

    def close(self) -> None:
        """End the server and all that it started."""
        if self._process is None:
            return
        for number, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def complete(self, prompts: list[list[int]], tokens: int) -> float:
        """Seconds until each prompt has its `tokens` new ones."""
        began = time.perf_counter()
        with self._answer(prompts, tokens, stream=False) as answer:
            content = json.loads(answer.read())
        ended = time.perf_counter()
        _exact(content.get("usage"), prompts, tokens)
        return ended - began

    def stream(self, prompts: list[list[int]], tokens: int) -> float | None:
        """Seconds from when every prompt has its first new token until all have `tokens`. None
        where a prompt's first event held more than one: a server that has fallen behind merges
        them, and when the first was there is not to be told."""
        waiting, merged, first, usage = set(range(len(prompts))), False, None, None
        with self._answer(prompts, tokens, stream=True) as answer:
            for event in _events(answer):
                now = time.perf_counter()
                new = {choice["index"] for choice in event.get("choices", ())}
                if not new:
                    usage = event.get("usage") or usage
                    continue
                if new & waiting and _tokens_so_far(event) > 1:
                    merged = True
                waiting -= new
                if not waiting and first is None:
                    first = now
                last = now
        _exact(usage, prompts, tokens)
        return None if merged else last - first

    @contextlib.contextmanager
    def _answer(self, prompts: list[list[int]], tokens: int, stream: bool):
        asked: dict[str, Any] = {
            "model": "probed",
            "prompt": prompts,
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": stream,
        }
        if stream:
            asked["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        with self._posted(asked) as answer:
            yield answer

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request for completions, asked in vLLM's own words."""
        with self._posted({"model": "probed", **asked}) as answer:
            return json.loads(answer.read())

    @contextlib.contextmanager
    def _posted(self, asked: dict[str, Any]):
        body, kind = json.dumps(asked), {"Content-Type": "application/json"}
        try:
            with self._connected(START_SECONDS) as to:
                to.request("POST", "/v1/completions", body, kind)
                answer = to.getresponse()
                if answer.status >= 500:
                    raise self._ended(f"fails ({answer.status})")
                if answer.status != 200:
                    said = answer.read().decode(errors="replace").strip()
                    raise Refusal("refused", f"vllm refuses ({answer.status}): {said[:300]}")
                yield answer
        except (OSError, http.client.HTTPException) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            raise self._ended(f"broke off ({type(error).__name__})") from error

    def _connected(self, timeout: float):
        to = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        return contextlib.closing(to)


def _threaded(threads: int | None) -> dict[str, str]:
    """As many as the other engines, and not bound to cores: vLLM's own way keeps one core free of
    them for its scheduler, and another number would not compare."""
    if threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Server-sent events, each as it comes."""
    for line in answer:
        if line.startswith(b"data:"):
            content = line.removeprefix(b"data:").strip()
            if content == b"[DONE]":
                return
            yield json.loads(content)


def _tokens_so_far(event: dict[str, Any]) -> int:
    """That its sequence has; the server's own count."""
    try:
        return event["usage"]["completion_tokens"]
    except (KeyError, TypeError):
        reason = "vllm does not count the tokens of an event (continuous_usage_stats): install 0.6"
        raise Refusal("refused", f"{reason} or newer") from None


def _exact(usage: dict[str, int] | None, prompts: list[list[int]], tokens: int) -> None:
    asked = sum(map(len, prompts)), tokens * len(prompts)
    usage = usage or {}
    counted = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if counted != asked:
        raise Refusal("refused", f"vllm counted {counted} tokens, asked were {asked}")
