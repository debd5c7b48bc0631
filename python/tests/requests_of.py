"""Requests for the models of models/make.py."""

from typing import Any

import numpy as np


def wide_deep(batch: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, 10**12, (batch, 26)),
        "dense": rng.standard_normal((batch, 13), np.float32),
        "country": rng.choice(["de", "us", "somewhere"], batch).astype(object),
    }


def lookups(batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    return {
        "ids": rng.integers(0, 10, (batch, 3)),
        "words": rng.integers(0, 10, (batch, 2, 2), np.int32),
        "x": rng.standard_normal((batch, 2), np.float32),
    }


ALL: list[tuple[str, dict[str, Any]]] = [
    ("wide_deep", wide_deep(1)),
    ("wide_deep", wide_deep(32)),
    ("wide_deep", wide_deep(0)),
    ("lookups", lookups(1)),
    ("lookups", lookups(500)),
    ("strings", {"text": ["to be or not to be", "", "ä" * 100]}),
    ("control_flow", {"n": 6, "x": np.linspace(0, 1, 7, dtype=np.float32)}),
    ("control_flow", {"n": 3, "x": np.linspace(0, 1, 7, dtype=np.float32)}),
    ("tf1_saved_model", {"word": ["a", "b", "c"], "n": 5}),
    ("frozen_large", {"ids": np.arange(0, 1_000_000, 7919, dtype=np.int32)}),
]
