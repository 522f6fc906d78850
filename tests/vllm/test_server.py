"""The OpenAI-compatible server with its real client, an engine in a process of its own with compiled layers."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.vllm.miniatures import Trained, trained

OPTIONS = '{"iwp": {"budget": 0.222, "layer": 2}}'
PATIENCE = 400
"""Seconds until the server answers: it compiles the layers first."""


class Server:
    """A running server."""

    def __init__(self, miniature: Trained, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.miniature, self.process, self.log = miniature, process, log
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)

    def ask(self, index: int, **options: Any) -> str:
        """Return the answer to a question about a picture; options are `mm_processor_kwargs`."""
        example = self.miniature.examples[index]
        picture = io.BytesIO()
        example.scene.image.save(picture, "PNG")
        url = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
        content: list[Any] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": example.question.text},
        ]
        completion = self.client.chat.completions.create(
            model=str(self.miniature.folder),
            messages=[{"role": "user", "content": content}],
            max_tokens=2,
            temperature=0.0,
            extra_body={"mm_processor_kwargs": options} if options else None,
        )
        return (completion.choices[0].message.content or "").strip()

    def word(self, ids: list[int]) -> str:
        """Return the answer that some ids spell."""
        return str(self.miniature.miniature.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the server on a port of this machine."""
    place = tmp_path_factory.mktemp("server")
    miniature = trained("qwen2.5-vl", place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What ``vllm serve`` runs; that command of the CPU build looks for a distribution called vllm, and stops.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(miniature.folder)]
    command += ["--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--max-model-len", "512", "--hf-overrides", OPTIONS]
    command += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}', "--max-num-seqs", "4"]
    command += ["--trust-request-mm-kwargs"]
    log = place / "log"
    settings = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CACHE_ROOT": str(place / "cache")}
    with log.open("wb") as written:
        process = subprocess.Popen(command, env=settings, stdout=written, stderr=subprocess.STDOUT)
    running = Server(miniature, process, port, log)
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def _wait(server: Server) -> None:
    """Wait until the server answers.

    Raises
    ------
    RuntimeError
        If it does not.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.process.poll() is None:
        try:
            server.client.models.list()
        except openai.APIConnectionError:
            time.sleep(1)
        else:
            return
    msg = f"the server did not start: {server.log.read_text()[-3000:]}"
    raise RuntimeError(msg)


def test_the_server_prunes_by_the_question_of_each_message(server: Server) -> None:
    """Answers are those of Transformers on the rows that a session there keeps; the log has a line a request."""
    import torch

    miniature = server.miniature
    for index in range(6):
        example = miniature.examples[index]
        kept = torch.tensor(miniature.kept(example.scene.image, example.question.text, layer=2))

        assert server.ask(index) == server.word(miniature.answer_of_rows(example, kept))

    lines = [line for line in server.log.read_text().splitlines() if "iwp: tokens kept:" in line]
    assert len(lines) == 6
    assert f"{len(kept)} of image 1 (budget 0.222, method 'iwp' at layer 2, by the request's prompt)" in lines[-1]


def test_one_request_may_keep_everything(server: Server) -> None:
    """The budget of a request comes through the client's `extra_body`."""
    miniature = server.miniature

    answers = [server.ask(index, iwp_budget=1.0) for index in range(6)]

    assert answers == [server.word(miniature.answer(each)) for each in miniature.examples[:6]]


def test_wrong_options_are_the_clients_error(server: Server) -> None:
    """The server says what is wrong, and goes on."""
    with pytest.raises(openai.BadRequestError, match=r"`budget` is 3\.5"):
        server.ask(0, iwp_budget=3.5)

    assert server.ask(0, iwp_budget=1.0) == server.word(server.miniature.answer(server.miniature.examples[0]))
