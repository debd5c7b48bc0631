"""Metrics against their list, and what is made of them: the dashboard and the rules for alerts."""

import json
import re
import shutil
import subprocess
import time

import pytest
import yaml
from conftest import ROOT, only, place
from test_grpc import predict
from test_models import bias
from test_operations import batching, loop

DEPLOY = ROOT / "crates/model-server/deploy"
RULES = DEPLOY / "prometheus/rules.yaml"
PATH = "/monitoring/prometheus/metrics"
SAMPLE = re.compile(r"([\w:]+)(?:\{(.*)\})? \S+")


def scrape(server):
    """Types and labels by metric, without those of histograms' own."""
    text = server.http("GET", PATH)[2].decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, found = SAMPLE.fullmatch(line).groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            name = family if types.get(family) == "histogram" else name
            own = set(re.findall(r'(\w+)="', found or "")) - {"le"}
            labels.setdefault(name, set()).update(own)
    assert labels.keys() == types.keys()
    return {name: (types[name], labels[name]) for name in types}


def wait_for(is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def samples(server, name):
    """Values by labels."""
    text = server.http("GET", PATH)[2].decode()
    found = {}
    for line in text.splitlines():
        if re.match(rf"{name}[ {{]", line):
            labels = re.findall(r'(\w+)="([^"]*)"', line)
            found[tuple(sorted(labels))] = float(line.rsplit(" ", 1)[1])
    return found


@pytest.fixture
def busy(start, base, tmp_path):
    """A server of which every part has been used."""
    text = "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 }"
    entry = 'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
    config = tmp_path / "models.config"
    entries = "".join(entry.format(name, base) for name in ["half", "loop"])
    config.write_text(f"model_config_list {{ {entries} }}")
    place(base / "half", 2, "half_plus")
    warm = base / "half/2/assets.extra"
    warm.mkdir()
    (warm / "tf_serving_warmup_requests").write_bytes(b"")
    server = start(
        f"--model_config_file={config}",
        "--enable_prometheus",
        *batching(tmp_path, text),
    )
    assert bias(server) == 2
    body = {"instances": [1.0]}
    assert server.http("POST", "/v1/models/half:predict", body)[0] == 200
    return server


def test_all_metrics_are_listed(busy):
    found = scrape(busy)
    rows = re.findall(
        r"^\| `(\S+)` \| (\w+) \| (\S+) \| (.*?) ?\| .*\|$",
        (ROOT / "docs/metrics.md").read_text(),
        re.M,
    )
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, _, labels in rows
    }
    assert len(listed) == len(rows)
    # It needs GPUs.
    del listed["session_group_stream_info"]
    assert listed == found
    units = {"seconds": "s", "bytes": "bytes"}
    for name, _, unit, _ in rows:
        for word, of_name in units.items():
            if re.search(rf"_{word}(_total)?$", name):
                assert unit == of_name, name


def test_requests_of_models_and_versions(busy):
    def count(status, version=2):
        labels = {"model_name": "half", "version": str(version), "status": status}
        name = "session_group_server_requests_total"
        return samples(busy, name).get(tuple(sorted(labels.items())))

    before = count("OK")
    assert bias(busy) == 2
    assert count("OK") == before + 1
    with pytest.raises(Exception):
        predict(busy, inputs={"z": [1.0]})
    assert count("INVALID_ARGUMENT") == 1
    with pytest.raises(Exception):
        predict(busy, "no", inputs={"x": [1.0]})
    assert count("NOT_FOUND") is None
    for name in ["session_group_requests_total", "session_group_server_batch_rows_sum"]:
        of_half = [
            dict(labels)
            for labels in samples(busy, name)
            if ("model_name", "half") in labels
        ]
        assert of_half and all(labels["version"] == "2" for labels in of_half)
    info = samples(busy, "session_group_server_build_info")
    assert [dict(labels)["tensorflow"] for labels in info] == ["2.21.0"]


def test_versions_that_are_gone_have_no_metrics(busy, base):
    loaded = "session_group_server_loaded_versions"
    place(base / "half", 3, "half_plus")
    busy.wait_for("half", {3: "AVAILABLE", 2: "END"})
    versions = sorted(dict(labels)["version"] for labels in samples(busy, loaded))
    assert versions == ["1", "3"]
    text = busy.http("GET", PATH)[2].decode()
    assert 'version="2"' not in text


def test_requests_in_flight(start, base):
    server = start(*only("loop", base), "--enable_prometheus")
    name = "session_group_server_in_flight_requests"
    labels = (("entrypoint", "GRPC"), ("model_name", "loop"))
    running = [loop(server, 2_000_000_000) for _ in range(3)]
    wait_for(lambda: samples(server, name).get(labels) == 3)
    for call in running:
        call.cancel()
    wait_for(lambda: samples(server, name)[labels] == 0)


def metrics_of(expression):
    """The names of metrics in PromQL."""
    text = re.sub(r"\"[^\"]*\"|'[^']*'", "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", text)
    grouping = r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
    text = re.sub(grouping, " ", text)
    # A name before a parenthesis is a function.
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:]|\s*\()", text)
    return set(names) - {"and", "or", "unless", "offset", "bool"}


def known(server):
    """Names in PromQL, and one that Prometheus makes itself."""
    names = {"up"}
    for name, (kind, _) in scrape(server).items():
        is_histogram = kind == "histogram"
        names |= {name + end for end in ["_bucket", "_sum", "_count"] if is_histogram}
        names |= set() if is_histogram else {name}
    return names


def test_names_are_found_in_expressions():
    text = (
        'sum by (a, b) (rate(:x:y_sum{c="d"}[5m])) / on (a) max without (q) (z) > 0.1'
    )
    assert metrics_of(text) == {":x:y_sum", "z"}
    text = 'histogram_quantile(0.9, sum by (le) (rate(w_bucket{v=~"u|t"}[$__rate_interval])))'
    assert metrics_of(text) == {"w_bucket"}
    assert metrics_of("label_values(s{r=~'$q'}, p)") == {"s", "p"}


def test_the_dashboard_shows_what_there_is(busy):
    dashboard = json.loads((DEPLOY / "grafana/server.json").read_text())
    found, there = set(), known(busy)
    for panel in dashboard["panels"]:
        assert panel["title"]
        for target in panel.get("targets", []):
            metrics = metrics_of(target["expr"])
            assert metrics and metrics <= there, (panel["title"], metrics - there)
            found |= metrics
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            name, label = re.fullmatch(
                r"label_values\((\w+).*, (\w+)\)", query
            ).groups()
            assert name in there
            assert label in scrape(busy)[name][1] | {"instance"}
    for annotation in dashboard["annotations"]["list"]:
        assert metrics_of(annotation["expr"]) <= there
    # All of the server's own are on it.
    own = {name for name in scrape(busy) if name.startswith("session_group_server_")}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in found}
    assert own - shown == {"session_group_server_build_info"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_labels_in_the_dashboard_are_there(busy):
    dashboard = json.loads((DEPLOY / "grafana/server.json").read_text())
    found = scrape(busy)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            (name, *_) = metrics_of(target["expr"])
            family = name if name in found else re.sub("_(bucket|sum|count)$", "", name)
            labels = found[family][1] | {"instance", "le"}
            asked = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            matched = re.findall(r"(\w+)(?:=|!=|=~)\"", target["expr"])
            shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            all_asked = {one for group in asked for one in group.split(", ")}
            assert all_asked | set(matched) | set(shown) <= labels, target


def test_alerts_are_about_what_there_is(busy):
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    there = known(busy)
    for rule in rules:
        metrics = metrics_of(rule["expr"])
        assert metrics and metrics <= there, (rule["alert"], metrics - there)
        assert set(rule["annotations"]) == {"summary", "action"}
        for flag in re.findall(r"--(\w+)", rule["annotations"]["action"]):
            assert flag in (ROOT / "crates/model-server/src/flags.rs").read_text()
    tests = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    names = {rule["alert"] for rule in rules}
    for test in tests:
        assert {one["alertname"] for one in test["alert_rule_test"]} == names
    fired = [
        one for test in tests for one in test["alert_rule_test"] if "exp_alerts" in one
    ]
    assert {one["alertname"] for one in fired} == names


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_alerts_fire_when_they_are_to():
    for command in [["check", "rules", RULES], ["test", "rules", "rules_test.yaml"]]:
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_prometheus_reads_the_metrics(busy):
    text = busy.http("GET", PATH)[2]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True
    )
    # Names of TensorFlow Serving are not as Prometheus advises; what can't be read is another error.
    assert b"error while linting: " not in done.stderr, done.stderr


def test_batches_are_counted_by_model(busy):
    waiting = samples(busy, "session_group_server_batch_waiting_requests")
    assert waiting and not any(waiting.values())
    count = "session_group_server_batch_rows_count"
    labels = tuple(sorted({"model_name": "half", "version": "2"}.items()))
    before = samples(busy, count)[labels]
    assert bias(busy) == 2
    assert samples(busy, count)[labels] == before + 1
