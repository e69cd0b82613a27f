"""A process of its own that answers requests: `python -m MODULE`, a JSON document a line.

A process that has trained, exported or quantised has threads and memory that disturb what is timed, and onnxruntime
shares one pool of threads only where no other session was opened before.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from routekit.errors import InputError, RoutekitError, reason


class Worker:
    """A process that is there from its first request on, for as long as the context.

    Args:
        module: What it runs; it ends with a call of `serve`.
        what: What it does, for errors.
        threads: The threads with which it computes.
    """

    def __init__(self, module: str, what: str, threads: int) -> None:
        self.module, self.what, self.threads = module, what, threads
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.files = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *details: object) -> None:
        if self.process is not None:
            self.process.communicate()
        self.files.cleanup()

    @property
    def folder(self) -> Path:
        """For files that requests name."""
        return Path(self.files.name)

    def ask(self, request: dict[str, Any]) -> list[Any]:
        """Send a request, and return its answer.

        Args:
            request: The request, for JSON.

        Returns:
            What the process found.

        Raises:
            InputError: Something in the request is wrong.
            RoutekitError: The request failed, or the process ended. The next request begins another one.
        """
        errors = self.folder / "errors.txt"
        if self.process is None:
            shared = {"ROUTEKIT_SHARED_THREADS": "1", "OMP_NUM_THREADS": str(self.threads)}
            with errors.open("w") as stream:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", self.module],
                    env=os.environ | shared,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    text=True,
                )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.process.communicate()
            *_, last = [f"exit code {self.process.returncode}", *errors.read_text().strip().splitlines()]
            self.process = None
            raise RoutekitError(f"{self.what} failed: {last}")
        document = json.loads(answer)
        if "error" in document:
            raise (InputError if document["input"] else RoutekitError)(document["error"])
        found: list[Any] = document["found"]
        return found


def serve(answer: Callable[[dict[str, Any]], list[Any]]) -> None:
    """What the process does: answer each request until there are no more.

    Args:
        answer: The request -> what was found, for JSON.
    """
    # What libraries print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            document: dict[str, Any] = {"found": answer(json.loads(line))}
        except Exception as error:  # the other process tells the user
            document = {"error": reason(error), "input": isinstance(error, InputError)}
        answers.write(json.dumps(document) + "\n")
        answers.flush()
