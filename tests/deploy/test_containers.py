"""Dockerfile and compose.yaml fit the rest of the repository; they build and run where a container engine is."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import yaml

from syncapp.config import Settings, SettingsError
from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.runner import Web, app_env, procfile
from syncapp.dev.servers import Servers
from syncapp.dev.valkey_node import ValkeyNode
from syncapp.redis_url import parse
from tests.support.web_clients import RestClient, metric_value, wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = {each.name.upper() for each in fields(Settings)}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"web": "web", "worker": "worker", "migrate": "release", "cluster-web": "web", "cluster-worker": "worker"}
"""Services that run our image, and their lines of the Procfile."""
CLUSTERED = [name for name, each in SERVICES.items() if each.get("profiles") == ["cluster"]]
NODES = [f"cluster-{number}" for number in range(1, 7)]
GRACEFUL_TIMEOUT_S = 15  # of gunicorn.conf.py
KNOWN = {"FROM", "LABEL", "ENV", "RUN", "COPY", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def sources(self) -> list[str]:
        """What a COPY takes from the repository; nothing if it copies from another stage."""
        words = self.text.split()
        return [] if words[0].startswith("--from") else words[:-1]


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def last_stage() -> list[Instruction]:
    every = instructions()
    return every[max(place for place, each in enumerate(every) if each.name == "FROM") :]


def one(name: str) -> str:
    (found,) = [each.text for each in last_stage() if each.name == name]
    return found


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m)", text)
    assert match, text
    return int(match[1]) * (60 if match[2] == "m" else 1)


def words(command: str) -> list[str]:
    """A command of the Procfile, with the default of each variable."""
    return shlex.split(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", command))


def test_the_dockerfile_has_only_instructions_that_exist() -> None:
    assert {each.name for each in instructions()} <= KNOWN


def test_the_image_has_the_python_that_platforms_use() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    images = [each.text.split()[0] for each in instructions() if each.name == "FROM"]
    assert set(images) == {f"python:{version}-slim-bookworm"}


def test_the_image_runs_the_web_process_as_nobody_special_and_gets_signals() -> None:
    user, group = map(int, one("USER").split(":"))
    assert user > 0
    assert group > 0
    assert json.loads(one("CMD")) == words(procfile()["web"])  # the exec form: no shell keeps the signal
    assert one("STOPSIGNAL") == "SIGTERM"
    check = json.loads(one("HEALTHCHECK").split("CMD", 1)[1])
    assert check == ["python", "deploy/healthcheck.py"]


def test_no_secret_is_built_in() -> None:
    named = re.findall(r"\w*(?:PASSWORD|SECRET|TOKEN|DSN|_URL)\w*", (ROOT / "Dockerfile").read_text())
    assert named == []
    assert "://" not in (ROOT / "Dockerfile").read_text()


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {source for each in instructions() if each.name == "COPY" for source in each.sources}
    assert sent == copied
    assert all((ROOT / source).exists() for source in copied)
    assert not any(fnmatch.fnmatch(".env", source) for source in sent)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's /app: what the last stage copies, and nothing else."""
    app = tmp_path / "app"
    app.mkdir()
    for each in last_stage():
        if each.name == "COPY":
            target = app / each.text.split()[-1]
            for source in map(ROOT.joinpath, each.sources):
                if source.is_dir():
                    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    target.mkdir(exist_ok=True)
                    shutil.copy(source, target)
    return app


class InImage(Process):
    """One of our services, started from the image's files."""

    stop_timeout_s = seconds(SERVICES["web"]["stop_grace_period"])

    def __init__(self, service: str, image: Path, env: dict[str, str]) -> None:
        argv = words(SERVICES[service]["command"])
        super().__init__(service, argv, directory=image, output=image.parent / f"{service}.log", env=env, cwd=image)


def test_what_is_copied_is_enough_for_every_service(servers: Servers, image: Path, database_url: str) -> None:
    port = str(free_port())
    env = app_env(os.environ, servers, HOST="127.0.0.1", PORT=port, WEB_CONCURRENCY="1", TMPDIR=str(image.parent))
    env.pop("PYTHONPATH", None)
    migrate = InImage("migrate", image, env)
    migrate.spawn()
    assert migrate.wait() == 0, migrate.output()
    web, worker = Web(env, directory=image, output=image.parent / "web.log"), InImage("worker", image, env)
    web.argv, web.cwd = words(SERVICES["web"]["command"]), image
    check = [sys.executable, str(image / "deploy" / "healthcheck.py")]
    try:
        worker.spawn()
        web.start()
        assert requests.get(f"{web.url}/api-docs/", timeout=60).status_code == 200
        stored = metric_value(web.url, 'syncapp_audit_queue{state="completed"}')
        RestClient(web.url).running()
        wait_until(lambda: metric_value(web.url, 'syncapp_audit_queue{state="completed"}') >= stored + 2)
        for kind in ("web", "worker"):
            wait_until(lambda: subprocess.run([*check, kind], env=env, check=False).returncode == 0)  # noqa: B023 called in this round
    finally:
        web.ask_to_stop()
        worker.ask_to_stop()
        began_s = time.monotonic()
        web.stop()
        worker.stop()
    assert (web.exit_code, worker.exit_code) == (0, 0)
    assert time.monotonic() - began_s < InImage.stop_timeout_s


def test_services_run_the_commands_of_the_procfile() -> None:
    assert {name: SERVICES[name]["command"] for name in OURS} == {name: procfile()[kind] for name, kind in OURS.items()}


def test_services_are_given_settings_that_exist() -> None:
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= SETTINGS
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    own = {"POSTGRES_PASSWORD", "PUBLISHED_PORT", "VALKEY_MAXMEMORY", "VALKEY_APPENDFSYNC"}
    assert used - own <= SETTINGS
    assert own.isdisjoint(SETTINGS)


def environment_of_web(service: str = "web", **dotenv: str) -> dict[str, str]:
    """Return the environment of a web process with these lines in `.env`."""

    def value(match: re.Match[str]) -> str:
        assert ":?" not in match[0] or match[1] in dotenv, match[0]
        return dotenv.get(match[1], match[2])

    form = re.compile(r"\$\{(\w+)(?::[?-]([^}]*))?\}")
    return dotenv | {name: form.sub(value, str(text)) for name, text in SERVICES[service]["environment"].items()}


def test_settings_of_the_services_are_valid() -> None:
    password = secrets.token_hex()
    settings = Settings.from_env(environment_of_web(POSTGRES_PASSWORD=password, AUTH_SECRETS=secrets.token_hex()))
    assert settings.auth == "required"
    assert settings.worker_threads == Settings().worker_threads


def test_only_access_by_secrets_needs_a_secret() -> None:
    password = secrets.token_hex()
    assert Settings.from_env(environment_of_web(POSTGRES_PASSWORD=password, AUTH="off")).auth == "off"
    jwks = "https://login.example/jwks.json"
    by_jwks = Settings.from_env(environment_of_web(POSTGRES_PASSWORD=password, AUTH_JWKS_URL=jwks))
    assert (by_jwks.auth, by_jwks.auth_secrets) == ("required", "")
    with pytest.raises(SettingsError, match="AUTH is required, so AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS_URL"):
        Settings.from_env(environment_of_web(POSTGRES_PASSWORD=password))


def test_images_of_servers_are_pinned_to_a_major_version() -> None:
    images = {each["image"] for name, each in SERVICES.items() if name not in OURS}
    assert sorted(re.sub(r":\d+$", "", image) for image in images) == ["postgres", "valkey/valkey"]
    assert all(re.search(r":\d+$", image) for image in images)
    assert {SERVICES[name]["image"] for name in OURS} == {"syncapp"}


def test_services_start_in_order_and_wait_until_they_are_needed() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("web", "worker"):
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "valkey": {"condition": "service_healthy"},
        }
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert "healthcheck" not in SERVICES[name]  # the image's
    assert SERVICES["migrate"]["restart"] == "no"
    assert all(SERVICES[name]["healthcheck"]["test"] for name in ("valkey", "postgres"))


def test_services_have_time_to_stop() -> None:
    waits = re.search(r"-t (\d+)", procfile()["worker"])
    assert waits
    settings = (ROOT / "gunicorn.conf.py").read_text()
    assert f"graceful_timeout = {GRACEFUL_TIMEOUT_S} " in settings
    for name in ("web", "worker"):
        grace_s = seconds(SERVICES[name]["stop_grace_period"])
        assert grace_s > max(GRACEFUL_TIMEOUT_S, int(waits[1])) + Settings().ws_drain_s


def test_the_store_keeps_its_data_and_evicts_nothing() -> None:
    command = SERVICES["valkey"]["command"]
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]  # not …/data, from version 18 on
    assert set(COMPOSE["volumes"]) == {"valkey", "postgres", *NODES}


def test_without_the_profile_there_is_no_cluster() -> None:
    assert [name for name in SERVICES if name not in CLUSTERED] == ["web", "worker", "migrate", "valkey", "postgres"]
    assert set(NODES) | {"cluster-web", "cluster-worker", "cluster-tasks", "cluster-form"} == set(CLUSTERED)
    assert all(set(SERVICES[name].get("depends_on", ())).isdisjoint(CLUSTERED) for name in ("web", "worker", "migrate"))


def test_processes_of_the_cluster_know_all_nodes_and_have_a_server_for_tasks() -> None:
    env = environment_of_web("cluster-web", POSTGRES_PASSWORD=secrets.token_hex(), AUTH_SECRETS=secrets.token_hex())
    settings = Settings.from_env(env)
    assert [host for host, _ in parse(settings.redis_url).nodes] == NODES
    assert parse(settings.tasks_redis_url).options["host"] == "cluster-tasks"
    stores = {"REDIS_URL", "TASKS_REDIS_URL"}
    for name in ("web", "worker"):
        one, many = SERVICES[name], SERVICES[f"cluster-{name}"]
        assert {key: many["environment"][key] for key in many["environment"].keys() - stores} == {
            key: one["environment"][key] for key in one["environment"].keys() - stores
        }
        differing = {"profiles", "environment", "depends_on", "networks"}
        assert {key: many[key] for key in many.keys() - differing} == {key: one[key] for key in one.keys() - differing}
        assert many["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "cluster-form": {"condition": "service_completed_successfully"},
            "cluster-tasks": {"condition": "service_healthy"},
        }
        assert many["networks"] == ["default", "cluster"]  # PostgreSQL is in the first


def test_nodes_keep_their_data_and_addresses() -> None:
    commands = {SERVICES[name]["command"] for name in NODES}
    (command,) = commands
    assert command.startswith(SERVICES["valkey"]["command"])
    assert words(command)[-6:] == [
        *("--cluster-enabled", "yes", "--cluster-node-timeout", "5000"),
        *("--cluster-require-full-coverage", "no"),
    ]
    (network,) = (ipaddress.ip_network(each["subnet"]) for each in COMPOSE["networks"]["cluster"]["ipam"]["config"])
    addresses = {ipaddress.ip_address(SERVICES[name]["networks"]["cluster"]["ipv4_address"]) for name in NODES}
    assert len(addresses) == len(NODES)
    assert all(address in network for address in addresses)
    for name in NODES:
        assert SERVICES[name]["volumes"] == [f"{name}:/data"]
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert SERVICES[name]["healthcheck"] == SERVICES["valkey"]["healthcheck"]


def test_a_cluster_is_formed_of_all_nodes_once() -> None:
    form = SERVICES["cluster-form"]
    assert form["depends_on"] == {name: {"condition": "service_healthy"} for name in NODES}
    assert form["restart"] == "no"
    shell, flags, script = form["command"]
    assert [shell, flags] == ["sh", "-ec"]
    assert re.findall(r"(\S+):6379", script) == NODES
    assert "--cluster-replicas 1 --cluster-yes" in script
    assert "$" not in script  # compose would replace it


@pytest.mark.skipif(not shutil.which("valkey-cli"), reason="there is no valkey-cli here")
def test_the_script_forms_a_cluster_at_the_first_start_only(tmp_path: Path) -> None:
    nodes = [ValkeyNode(tmp_path, tmp_path / name, options=[]) for name in NODES]
    script = SERVICES["cluster-form"]["command"][-1]
    for name, node in zip(NODES, nodes, strict=True):
        script = script.replace(f"{name}:6379", f"127.0.0.1:{node.port}")
        script = script.replace(f"-h {name} ", f"-h 127.0.0.1 -p {node.port} ")
    try:
        for node in nodes:
            node.start()
        for _ in range(2):
            subprocess.run(["sh", "-ec", script], check=True, timeout=120)
            assert "cluster_slots_assigned:16384" in nodes[0].ask("CLUSTER", "INFO")
        assert sum("master" in each.flags for each in nodes[0].view()) == 3
    finally:
        for node in nodes:
            node.stop()


def test_nothing_but_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert list(published) == ["web", "cluster-web"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


ENGINES = [name for name in ("docker", "podman") if shutil.which(name)]


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=False, timeout=1500)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _engine() -> str:
    for name in ENGINES:
        with_engine = subprocess.run([name, "info"], capture_output=True, check=False, timeout=60)
        if with_engine.returncode == 0:
            return name
    return ""


ENGINE = _engine()
needs_engine = pytest.mark.skipif(not ENGINE, reason="no container engine runs here (docker info fails)")


@contextmanager
def container(*arguments: str) -> Iterator[str]:
    """One container on the host's network, where the run's servers listen; removed at the end."""
    name = f"syncapp-test-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, "--network", "host", *arguments)
    try:
        yield name
    finally:
        print(docker("logs", name, check=False))
        docker("rm", "--force", name, check=False)


@needs_engine
@pytest.mark.timeout(1800)
def test_the_image_builds_and_runs_both_processes(servers: Servers, database_url: str) -> None:
    if os.environ.get("NO_NETWORK"):
        pytest.skip("NO_NETWORK is set: the image cannot be built")
    (base,) = {each.text.split()[0] for each in instructions() if each.name == "FROM"}
    if not docker("images", "--quiet", base) and not docker("pull", "--quiet", base, check=False):
        pytest.skip(f"{base} cannot be pulled from here")
    tag = f"syncapp-test-{uuid.uuid4().hex[:8]}"
    docker("build", "--tag", tag, str(ROOT))
    port = free_port()
    env = [
        *("--env", f"REDIS_URL={servers.redis_url}"),
        *("--env", f"DATABASE_URL={servers.database_url}"),
        *("--env", f"PORT={port}"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    ]
    try:
        docker("run", "--rm", "--network", "host", *env, tag, *words(procfile()["release"]))
        with container(*env, tag) as web, container(*env, tag, *words(procfile()["worker"])) as worker:
            for name in (web, worker):
                check = ("exec", name, "python", "deploy/healthcheck.py")
                wait_until(lambda: docker(*check, check=False).endswith("healthy"), within_s=120)  # noqa: B023 called in this round
                assert docker("exec", name, "id", "-u") == "10001"
            RestClient(f"http://127.0.0.1:{port}").running()
            for name in (web, worker):
                docker("stop", "--time", "30", name)
                assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rmi", "--force", tag, check=False)
