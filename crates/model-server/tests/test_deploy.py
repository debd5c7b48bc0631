"""What is deployed: KServe's runtime, and HAProxy in front of servers that die. Kubernetes: test_kubernetes.py."""

import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import kubernetes_validate
import pytest
import tensorflow as tf
import yaml
from conftest import ROOT, free_port, place
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from test_grpc import values
from test_models import bias

DEPLOY = ROOT / "crates/model-server/deploy"
KUBERNETES = "1.33"


def test_kserve_runtime(start, tmp_path):
    """KServe's own arguments for TensorFlow start the server, as its fields are KServe's."""
    runtime = yaml.safe_load((DEPLOY / "kserve/runtime.yaml").read_text())
    spec = runtime["spec"]
    assert set(spec) <= {
        "annotations",
        "supportedModelFormats",
        "protocolVersions",
        "containers",
    }
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [container]},
    }
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    place(tmp_path / "models", 1, "half_plus")
    arguments = [
        argument.replace("{{.Name}}", "half").replace(
            "/mnt/models", str(tmp_path / "models")
        )
        for argument in container["args"]
        if not re.match(r"--(port|rest_api_port)=", argument)
    ]
    server = start(*arguments)
    assert bias(server) == 2
    path = spec["annotations"]["prometheus.kserve.io/path"]
    assert b"request_count" in server.http("GET", path)[2]


def haproxy(tmp_path, servers):
    """The configuration with these servers and free ports."""
    grpc_port, rest_port = free_port(), free_port()
    text = (DEPLOY / "haproxy.cfg").read_text()
    text = text.replace("bind :8500", f"bind 127.0.0.1:{grpc_port}")
    text = text.replace("bind :8501", f"bind 127.0.0.1:{rest_port}")
    text = text.replace("/v1/models/ranker", "/v1/models/half")
    for i, server in enumerate(servers, 1):
        text = text.replace(f"server{i}:8500", f"127.0.0.1:{server.port}")
        text = text.replace(f"server{i}:8501", f"127.0.0.1:{server.rest_port}")
        text = re.sub(
            rf"(:{server.port} .* port) 8501", rf"\1 {server.rest_port}", text
        )
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    subprocess.run(["haproxy", "-c", "-f", file], check=True, capture_output=True)
    return subprocess.Popen(["haproxy", "-db", "-f", file]), grpc_port, rest_port


@pytest.mark.skipif(not shutil.which("haproxy"), reason="needs haproxy")
def test_a_server_that_dies_loses_no_request(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    flags = ["--model_name=half", f"--model_base_path={base}"]
    servers = [start(*flags) for _ in range(3)]
    proxy, grpc_port, rest_port = haproxy(tmp_path, servers)
    over, lost, answers = threading.Event(), [], []
    try:
        channel = grpc.insecure_channel(f"localhost:{grpc_port}")
        grpc.channel_ready_future(channel).result(20)
        deadline = time.monotonic() + 20
        url = f"http://127.0.0.1:{rest_port}/v1/models/half:predict"
        while True:
            try:
                urllib.request.urlopen(url, b'{"instances": [1]}', 5).read()
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

        def ask_grpc():
            own = grpc.insecure_channel(
                f"localhost:{grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
            )
            stub = prediction_service_pb2_grpc.PredictionServiceStub(own)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "half"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0] * 200))
            while not over.is_set():
                try:
                    answer = stub.Predict(request, timeout=20)
                    assert values(answer.outputs["y"])[0] == 2.5
                    answers.append("grpc")
                except Exception as error:
                    lost.append(error)
            own.close()

        def ask_rest():
            while not over.is_set():
                try:
                    with urllib.request.urlopen(
                        url, b'{"instances": [1]}', 20
                    ) as answer:
                        assert b"2.5" in answer.read()
                    answers.append("rest")
                except Exception as error:
                    lost.append(error)

        threads = [
            threading.Thread(target=ask) for ask in [ask_grpc] * 4 + [ask_rest] * 4
        ]
        [thread.start() for thread in threads]
        time.sleep(2)
        servers[0].process.kill()
        servers[0].process.wait()
        time.sleep(2)
        # One that ends by itself, too.
        servers[1].process.terminate()
        servers[1].process.wait(60)
        time.sleep(2)
        over.set()
        [thread.join() for thread in threads]
        assert lost == []
        assert answers.count("grpc") > 200 and answers.count("rest") > 200
        channel.close()
    finally:
        over.set()
        proxy.terminate()
        proxy.wait(20)
