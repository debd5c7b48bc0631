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

DECODER = SimpleNamespace(
    rows=8_000,
    width=256,
    positions=512,  # that the model was made for
    length=16,  # that are asked for
    layers=2,
    heads=4,
    head=64,
    feed=[256, 1024, 256],
    epsilon=1e-3,
)

TAGGER = SimpleNamespace(
    rows=219_000,  # 219,000 x 64 floats: 56 MB
    width=64,
    length=20,
    hidden=128,
    tags=9,
)

BILSTM = SimpleNamespace(
    rows=100_000,  # 100,000 x 64 floats: 26 MB
    width=64,
    length=20,
    hidden=64,
    tags=9,
)

GRU = SimpleNamespace(
    rows=100_000,  # 100,000 x 32 floats: 13 MB
    width=32,
    length=100,
    hidden=32,
)

WIDE_DEEP_COLUMNS = SimpleNamespace(
    fields=FIELDS,
    dense=DENSE,
    ids=192_000,  # different strings of a field
    rows=50_000,  # that they are hashed to; 26 x 50,000 x 17 floats: 88 MB
    width=16,
    parts=4,
    hidden=[128, 64],
)

CONVNET = SimpleNamespace(
    size=96,
    channels=3,
    # Kernel, channels and stride. The first two answer with 96 x 96 x 32 floats for an image: 1.2 MB.
    layers=[(3, 32, 1), (1, 32, 1), (3, 32, 2), (1, 64, 1), (3, 64, 2), (1, 128, 1)],
    classes=8,
    epsilon=1e-3,
)

MLP = SimpleNamespace(sizes=[256, 1024, 1024, 256, 8])
