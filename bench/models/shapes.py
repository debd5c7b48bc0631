"""The sizes of the benchmark's models, for TensorFlow and for ONNX."""

from types import SimpleNamespace

FIELDS = 26  # categorical features of the Criteo data set
DENSE = 13  # its numeric ones

WIDE_DEEP = SimpleNamespace(
    fields=FIELDS,
    dense=DENSE,
    rows=192_000,  # 26 x 192,000 x 17 floats: 339 MB
    width=16,
    deep=[FIELDS * 16 + DENSE, 128, 64, 1],
)


class Dlrm(SimpleNamespace):
    def pairs(self):
        """The places below the diagonal of a matrix of all products, row after row."""
        n = self.vectors
        return [i * n + j for i in range(n) for j in range(i)]


DLRM = Dlrm(
    fields=FIELDS,
    dense=DENSE,
    rows=100_000,  # 26 x 100,000 x 16 floats: 166 MB
    width=16,
    vectors=FIELDS + 1,
    bottom=[DENSE, 512, 256, 16],
    top=[16 + (FIELDS + 1) * FIELDS // 2, 512, 256, 1],
)

RANKER = SimpleNamespace(
    rows=200_000,  # 200,000 x 64 floats: 51 MB
    width=64,
    length=20,
    layers=2,
    heads=4,
    head=16,
    feed=[64, 256, 64],
    epsilon=1e-3,  # as Keras has it, and as TensorFlow computes it where it fuses these nodes
)

MLP = SimpleNamespace(sizes=[256, 1024, 1024, 256, 8])
