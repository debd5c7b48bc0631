"""The examples for Kubernetes: against its published schemas, and each thing that they say on a server."""

import os
import pathlib
import re
import shutil
import time

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT, place, ssl_config
from test_models import bias
from test_operations import loop

DEPLOY = ROOT / "crates/model-server/deploy/kubernetes"
EXAMPLES = ["static-cpus", "shared-cpus"]
VERSION = "1.33"


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / f"{name}.yaml").read_text()))


def container(name):
    (deployment,) = documents(name)
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


def flags(name, models):
    """Those of an example, for a model that lies elsewhere."""
    return [flag.replace("/models/", f"{models}/") for flag in container(name)["args"]]


def variables(name):
    return {entry["name"]: entry["value"] for entry in container(name).get("env", [])}


def number(name, flag):
    (found,) = [
        int(argument.partition("=")[2])
        for argument in container(name)["args"]
        if argument.startswith(f"--{flag}=")
    ]
    return found


def cpus(name):
    return int(container(name)["resources"]["limits"]["cpu"])


def probes(name):
    """The path of each kind of probe. They ask REST, which is as it was where gRPC takes TLS only."""
    found = {}
    for kind in ["startup", "readiness", "liveness"]:
        probe = container(name)[f"{kind}Probe"]["httpGet"]
        assert probe["port"] == "rest"
        found[kind] = probe["path"]
    return found


def one_core(folder):
    """A command that runs another one on a machine whose only core has two threads, as Linux describes it."""
    both = sorted(os.sched_getaffinity(0))[:2]
    if len(both) < 2:
        pytest.skip("needs 2 CPUs")
    listed = ",".join(map(str, both))
    for cpu in both:
        topology = folder / f"devices/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_cpus_list").write_text(listed)
    node = folder / "devices/node/node0"
    node.mkdir(parents=True)
    (node / "cpulist").write_text(listed)
    mounted = f'mount --bind {folder}/devices /sys/devices/system && exec "$@"'
    return [
        *["unshare", "--map-root-user", "--mount", "taskset", "--cpu-list", listed],
        *["sh", "-c", mounted, "sh"],
    ]


def threads(server):
    """The session of each of a group's threads, its kind, and the CPUs that it may use."""
    found = []
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        named = re.match(r"sg\d+\.s(\d+)-(\w+)", (task / "comm").read_text())
        if named:
            found.append(
                (
                    int(named[1]),
                    named[2],
                    frozenset(os.sched_getaffinity(int(task.name))),
                )
            )
    return found


@pytest.mark.parametrize("name", [*EXAMPLES, "service"])
def test_the_manifests_are_what_kubernetes_takes(name):
    for document in documents(name):
        kubernetes_validate.validate(document, VERSION, strict=True)
        document["spec"]["unheard_of"] = {}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSION, strict=True)


def test_what_names_something_names_what_is_there():
    service, scaler = documents("service")
    for name in EXAMPLES:
        (deployment,) = documents(name)
        template = deployment["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert service["spec"]["selector"].items() <= labels.items()
        target = scaler["spec"]["scaleTargetRef"]
        assert target["name"] == deployment["metadata"]["name"]
        ports = {
            port["name"]: port["containerPort"] for port in container(name)["ports"]
        }
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
        # The times fit into each other.
        (_, seconds) = container(name)["lifecycle"]["preStop"]["exec"]["command"]
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert int(seconds) + number(name, "drain_seconds") < grace
        assert template["metadata"]["annotations"]["prometheus.io/port"] == "8501"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_flags_serve_and_probes_mean_what_they_say(start, tmp_path, name):
    place(tmp_path / "ranker", 1, "half_plus")
    # Where affinity is asked for, more sessions than cores are refused.
    few = ["--session_num_per_group=1"]
    gone = ["--servable_versions_always_present=false"]
    server = start(*flags(name, tmp_path), *few, *gone, env=variables(name))
    assert bias(server, model="ranker") == 2
    paths = probes(name)
    assert paths["startup"] == paths["readiness"] != paths["liveness"]
    assert all(server.http("GET", path)[0] == 200 for path in paths.values())
    # Without a model, the server is not ready; restarting it would mend nothing.
    shutil.rmtree(tmp_path / "ranker/1")
    server.wait_for("ranker", {1: "END"})
    assert server.http("GET", paths["readiness"])[0] != 200
    assert server.http("GET", paths["liveness"])[0] == 200


@pytest.mark.parametrize("name", EXAMPLES)
def test_probes_where_grpc_takes_tls_only(start, tmp_path, certificates, name):
    place(tmp_path / "ranker", 1, "half_plus")
    tls = f"--ssl_config_file={ssl_config(tmp_path, certificates)}"
    few = "--session_num_per_group=1"
    server = start(*flags(name, tmp_path), few, tls, wait=False)
    server.wait_for_port()
    assert all(server.http("GET", path)[0] == 200 for path in probes(name).values())


def test_static_cpus_give_each_session_whole_cores(start, tmp_path):
    """With two threads for each core, as most nodes have: the example's ratio, on one core."""
    place(tmp_path / "ranker", 1, "half_plus")
    resources = container("static-cpus")["resources"]
    assert resources["requests"] == resources["limits"]
    sessions, has = number("static-cpus", "session_num_per_group"), cpus("static-cpus")
    assert has % sessions == 0 and sessions <= has // 2
    there = {"through": one_core(tmp_path), "env": variables("static-cpus")}
    on_one_core = f"--session_num_per_group={2 * sessions // has}"
    server = start(*flags("static-cpus", tmp_path), on_one_core, **there)
    assert bias(server, model="ranker") == 2
    found = threads(server)
    assert {session for session, _, _ in found} == {0}
    assert {len(own) for _, _, own in found} == {2}
    server.stop()
    # A session for each CPU finds no core of its own.
    too_many = start(
        *flags("static-cpus", tmp_path),
        "--session_num_per_group=2",
        **there,
        wait=False,
    )
    assert too_many.process.wait(60) == 255
    assert "physical core" in (tmp_path / "server1.log").read_text()


def test_shared_cpus_have_threads_for_the_quota(start, tmp_path):
    """Whatever CPUs the node has."""
    place(tmp_path / "ranker", 1, "half_plus")
    quota = cpus("shared-cpus")
    server = start(*flags("shared-cpus", tmp_path))
    assert bias(server, model="ranker") == 2
    kinds = sorted((session, kind) for session, kind, _ in threads(server))
    sessions = range(number("shared-cpus", "session_num_per_group"))
    assert len(sessions) == quota
    assert kinds == [(i, kind) for i in sessions for kind in ["inter", "intra"]]
    for protocol in ["grpc_max_threads", "rest_api_num_threads"]:
        assert number("shared-cpus", protocol) == quota


def metric(server, path, name):
    """Its sum over all labels, as an adapter makes it for a pod."""
    lines = server.http("GET", path)[2].decode().splitlines()
    found = [line.split() for line in lines if re.match(rf"{name}\b", line)]
    assert found, f"no {name}"
    return sum(float(value) for _, value in found)


def test_the_metric_that_is_scaled_by_moves_before_requests_wait(start, tmp_path):
    place(tmp_path / "loop", 1, "tf1_saved_model")
    _, scaler = documents("service")
    (pods,) = [entry["pods"] for entry in scaler["spec"]["metrics"] if "pods" in entry]
    name, most = pods["metric"]["name"], int(pods["target"]["averageValue"])
    for example in EXAMPLES:
        assert most == number(example, "session_num_per_group") // 2
    (deployment,) = documents("shared-cpus")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    path = annotations["prometheus.io/path"]
    server = start(
        *[flag.replace("ranker", "loop") for flag in flags("shared-cpus", tmp_path)]
    )
    loop(server, 3).result()
    assert metric(server, path, name) == 0
    running = [loop(server, 10**9, timeout=5) for _ in range(most)]
    while metric(server, path, name) < most:
        assert not any(call.done() for call in running)
        time.sleep(0.02)
    assert metric(server, path, "session_group_server_waiting_requests") == 0
    assert all(call.code() for call in running)
