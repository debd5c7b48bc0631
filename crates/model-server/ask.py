"""Asks a server for the score of one row, by TensorFlow Serving's own client.

python crates/model-server/ask.py [--port PORT]
"""

import argparse

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--port", type=int, default=8500)
parser.add_argument("--model", default="wide_deep")
args = parser.parse_args()

request = predict_pb2.PredictRequest()
request.model_spec.name = args.model
request.inputs["ids"].CopyFrom(tf.make_tensor_proto([[7] * 26], tf.int64))
request.inputs["dense"].CopyFrom(tf.make_tensor_proto([[0.5] * 13], tf.float32))
request.inputs["country"].CopyFrom(tf.make_tensor_proto([b"at"]))
with grpc.insecure_channel(f"localhost:{args.port}") as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout=10)
print(f"version {answer.model_spec.version.value}: {answer.outputs['score'].float_val}")
