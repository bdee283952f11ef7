"""Clients behind the proxies of real deployments."""

from __future__ import annotations

import requests

from tests.support.cluster import Cluster
from tests.support.nginx import nginx
from tests.support.web_clients import RestClient


def test_commands_and_answers_pass_an_nginx_as_debian_sets_it_up(one_web: Cluster) -> None:
    with nginx(one_web.urls[0]) as proxy:
        api = RestClient(proxy.url)
        session_id = api.running()
        assert api.command(session_id, "switch")["version"] == api.state(session_id)["version"]
        assert requests.get(f"{proxy.url}/nothing", timeout=60).status_code == 404


PACKS = "gzip on; gzip_proxied any; gzip_min_length 1; gzip_types application/json; proxy_http_version 1.1;"


def test_a_tag_that_nginx_has_weakened_works_as_the_one_that_was_sent(one_web: Cluster) -> None:
    with nginx(one_web.urls[0], location=f"{PACKS} proxy_set_header Accept-Encoding '';") as proxy:
        session_id = RestClient(proxy.url).running()
        url = f"{proxy.url}/v1/sessions/{session_id}"
        read = requests.get(url, timeout=60)
        tag = read.headers["ETag"]
        assert (read.headers["Content-Encoding"], tag[:3]) == ("gzip", 'W/"')
        held = requests.get(f"{url}?wait_ms=300", headers={"If-None-Match": tag}, timeout=60)
        assert held.status_code == 304
        moved = requests.post(f"{url}/switch", headers={"If-Match": tag}, timeout=60)
        assert moved.json()["data"]["version"] == 3
        assert requests.post(f"{url}/switch", headers={"If-Match": tag}, timeout=60).status_code == 412
        news = requests.get(f"{url}?wait_ms=20000", headers={"If-None-Match": tag}, timeout=60)
        assert (news.status_code, news.json()["data"]["version"]) == (200, 3)


def test_what_is_compressed_already_passes_nginx_as_it_is(one_web: Cluster) -> None:
    with nginx(one_web.urls[0], location=PACKS) as proxy:
        session_id = RestClient(proxy.url).running(metadata={"a": "b" * 3000})
        read = requests.get(f"{proxy.url}/v1/sessions/{session_id}", timeout=60)
        assert read.headers["Content-Encoding"] == "gzip"
        assert read.headers["ETag"] == f'"{read.json()["data"]["epoch"]}-2"'
        assert read.json()["data"]["metadata"] == {"a": "b" * 3000}
