"""Tokens of streams and long polls, with `AUTH=required`."""

from __future__ import annotations

import uuid

import pytest
import requests

from tests.support.cluster import Cluster
from tests.support.event_streams import Events
from tests.support.tokens import bearer, token
from tests.support.web_clients import RestClient

pytestmark = pytest.mark.usefixtures("no_errors_logged")


@pytest.fixture
def api(guarded: Cluster) -> RestClient:
    return RestClient(guarded.urls[0], bearer())


def test_a_stream_takes_a_token_in_the_header_or_in_the_query(api: RestClient) -> None:
    session_id = api.create()
    watcher = token(scope="session:watch")
    bare = RestClient(api.url)
    with Events(RestClient(api.url, bearer(scope="session:watch")), session_id) as one:
        assert one.next()["version"] == 1
    with Events(bare, session_id, token=watcher) as two:
        assert two.next()["version"] == 1


def test_a_stream_or_long_poll_without_the_right_is_refused_before_it_begins(api: RestClient) -> None:
    session_id = api.create()
    stream, poll = f"{api.url}/v1/sessions/{session_id}/stream", f"{api.url}/v1/sessions/{session_id}?wait_ms=20000"
    for path in (stream, poll):
        none = requests.get(path, timeout=60)
        assert (none.status_code, none.headers["WWW-Authenticate"]) == (401, 'Bearer realm="SyncApp"')
        bad = requests.get(path, headers={"Authorization": "Bearer x"}, timeout=60)
        assert bad.status_code == 401
        assert 'error="invalid_token"' in bad.headers["WWW-Authenticate"]
        other = requests.get(path, headers=bearer(scope="session:create"), timeout=60)
        assert (other.status_code, other.json()["error"]["details"]) == (403, {"missing_scope": "session:watch"})
        strange = bearer(scope="session:watch", session_id=str(uuid.uuid4()))
        assert requests.get(path, headers=strange, timeout=60).status_code == 403


def test_a_stream_ends_with_its_token_and_says_so(api: RestClient) -> None:
    session_id = api.create()
    with Events(RestClient(api.url, bearer(scope="session:watch", expires_in_s=2)), session_id) as one:
        assert one.next()["type"] == "CONNECTED"
        assert one.next()["type"] == "STATE_SYNC"
        last = one.next()
        assert (last["type"], last["code"], last["message"]) == ("ERROR", "UNAUTHORIZED", "the token has expired")
        with pytest.raises(EOFError):
            one.next()


def test_a_long_poll_ends_with_its_token(api: RestClient) -> None:
    session_id = api.create()
    path = f"{api.url}/v1/sessions/{session_id}"
    tag = requests.get(path, headers=api.headers, timeout=60).headers["ETag"]
    headers = bearer(scope="session:watch", expires_in_s=2) | {"If-None-Match": tag}
    answer = requests.get(f"{path}?wait_ms=25000", headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "the token has expired")


def test_a_stream_for_another_tenants_session_waits_as_for_one_that_does_not_exist(api: RestClient) -> None:
    session_id = api.running()
    with Events(RestClient(api.url, bearer(tenant="acme")), session_id) as theirs:
        hello = theirs.next()
        assert (hello["type"], hello["sessionId"], hello["epoch"]) == ("CONNECTED", session_id, None)
    assert (
        requests.get(f"{api.url}/v1/sessions/{session_id}", headers=bearer(tenant="acme"), timeout=60).status_code
        == 404
    )
