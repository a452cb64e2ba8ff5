"""Every call against its description: what the OpenAPI schema allows is answered as it says, whatever is sent."""

import itertools
import json
import shutil

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.deephash.server.servers import CHANGE, running

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(made, tmp_path_factory):
    """The schema of a server whose images the generated calls may remove."""
    folder = tmp_path_factory.mktemp("schema")
    index = shutil.copytree(made.index, folder / "photos.dhx")
    (folder / "uploads").mkdir()
    with running(index, folder, uploads=folder / "uploads", max_jobs=1000) as server:
        server.schema = schemathesis.openapi.from_url(server.url + "v1/openapi.json")
        yield server


def test_every_call_answers_as_it_is_described(described):
    n_called = 0
    wanted = itertools.product(
        described.schema.get_all_operations(), (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )
    for operation, mode in wanted:

        @hypothesis.given(case=operation.ok().as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=10, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        def call(case):
            nonlocal n_called
            n_called += 1
            case.call_and_validate(checks=CHECKS, headers=CHANGE, timeout=30)

        try:
            call()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing wrong can be sent where nothing is sent
    assert n_called > 150
    assert described.http.get("/v1/search?id=1").status_code in (200, 404)


def test_every_call_is_described_with_what_it_needs(described):
    text = described.http.get("/v1/openapi.json").json()
    assert text["openapi"].startswith("3.")
    calls = [(path, method, call) for path, calls in text["paths"].items() for method, call in calls.items()]
    assert len(calls) >= 20
    assert len({call["operationId"] for _, _, call in calls}) == len(calls)
    for path, method, call in calls:
        assert call["description"], path
        assert path.startswith("/v1/") or path in ("/healthz", "/readyz", "/metrics")
        if path.startswith("/v1/"):
            assert call["security"], path
            assert {"401", "403", "421", "422", "429", "503"} <= set(call["responses"]), path
            for status, answer in call["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer"), path
        changes = path.startswith("/v1/") and method != "get"
        harmless = path in ("/v1/search", "/v1/encode", "/v1/session")
        names = {parameter["name"] for parameter in call.get("parameters", [])}
        assert ("X-DeepHash" in names) == (changes and not harmless), (method, path)
    assert json.dumps(text).count('"example') > 10
