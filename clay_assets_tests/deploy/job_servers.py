"""HTTP servers on loopback that record what a run launcher sends."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance import DagsterInstance
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun


@dataclass
class JobServer:
    """A server that accepts every job.

    Attributes:
        url: URL of the server.
        answers: Path → response to GET.
        jobs: Bodies of the POST requests.
    """

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def job_server(answers: dict[str, Any], accepted: dict[str, Any] | None = None) -> Iterator[JobServer]:
    """Serve for the length of the block.

    Args:
        answers: Path → response to GET.
        accepted: Response to POST; None: the body of the request.
    """
    server = JobServer(answers=answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(200, server.answers.get(self.path, {}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.jobs.append(body)
            self._respond(200, accepted or body)

        def log_message(self, *_: object) -> None: ...

        def _respond(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        http.shutdown()


def launch(instance: DagsterInstance, image: str | None = None) -> DagsterRun:
    """Launch a run of Dagster's implicit job, as backfills from the UI do, and return it."""
    origin = JobPythonOrigin(
        "__ASSET_JOB",
        RepositoryPythonOrigin(
            executable_path="python",
            code_pointer=ModuleCodePointer("clay_assets.definitions", "defs"),
            container_image=image,
            entry_point=["dagster"],
            container_context=None,
        ),
    )
    run = DagsterRun(job_name="__ASSET_JOB", job_code_origin=origin)
    instance.add_run(run)
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run
