"""The service against its own OpenAPI: whatever a client may send, the service has an answer for it."""

import subprocess
import sys

import pytest
from services import odd_model, serving


@pytest.mark.slow
def test_whatever_is_sent_is_answered_as_the_openapi_says(tmp_path):
    odd_model(tmp_path / "odd")
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    with serving(tmp_path / "odd", tmp_path / "events.db", max_body=10_000_000) as (client, _):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.url}/openapi.json", "--no-color"]
        command += ["--checks", checks, "--max-examples", "20"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
