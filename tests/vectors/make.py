"""Writes the vectors of docs/protocol.md: `python tests/vectors/make.py` from the project's root.

messages.json    [{"name", "from": "replica" | "gateway", "text", "message"}]: one decodes to the other and back
frames.json      [{"name", "hex", "frame": {..., "payload_hex"}}]
items.json       [{"name", "hex", "number", "payload_hex"}]: frames of raw items
malformed.json   [{"name", "of": "text" | "frame" | "gradient" | "item", "text" | "hex", "close"}]
                 a frame that cannot be unpacked, or a gradient that does not fit int8 shards of 2,048 and 1,000 values
codecs.json      [{"name", "codec", "values_hex" (f32), "uniforms_hex" (f32), "payload_hex", "decoded_hex" (f32)}]
chunks.json      [{"name", "hex", "sha256", "is_whole": bool}]: whether a chunk of that name is taken
random.json      [{"name", "seeds", "bits" (the first 8), "order" (a permutation)}]
refused.json     [{"name", "codec", "count", "payload_hex", "error": "length" | "not-finite"}]
precision.json   [{"name", "values_hex" (f32), "arrays": [[start, end], ...], "holds": {codec: bool}}]
local-steps.json [{"name", "gradient_hex", "values_hex", "stepped_hex" (f32 each), "reach",
                   "training": {"local_learning_rate", "clip_value", "clip_norm"}}]: powers of two, exact in any order
wide.json        [{"name", "kind": "parameters" | "gradient", "codec" (the job's), "hex", "values_hex" (f32) or null}]
                 a frame of one shard of 3 values; null: it does not fit
"""

from __future__ import annotations

import json
import struct
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crowdlearn import codecs, frames, precision, protocol
from crowdlearn.replica.local_step import local_step
from crowdlearn.replica.random import Random
from crowdlearn.sharding import Shard

FOLDER = Path(__file__).parent

NAME = sha256(b"abc").hexdigest()


class FixedUniforms:
    """Gives codecs the noise that a vector records."""

    def __init__(self, uniforms: np.ndarray[Any, Any]) -> None:
        self.uniforms = uniforms

    def random(self, size: int, dtype: type) -> np.ndarray[Any, Any]:
        """The recorded noise."""
        assert size == self.uniforms.size
        return self.uniforms.astype(dtype)


def messages() -> list[dict[str, Any]]:
    """One row of every message of docs/protocol.md, and of every variant that matters."""
    p = protocol
    welcome = p.Welcome(
        job="mnist", run="3f0c5a9d2b11", replica="67414f80a1b2c3d4", state="running",
        program="/jobs/mnist/3f0c5a9d2b11/program",
        parameters=(p.ParameterArray("W1", (784, 100), 0), p.ParameterArray("b1", (100,), 78400)),
        shards=(Shard(0, 40960), Shard(40960, 37540)),
        batch=p.BatchLayout(100, (p.BatchArray("image", "uint8", (784,)), p.BatchArray("label", "uint8", ()))),
        training=p.ReplicaTraining(1, 1, 0.05, 8, 2, "int8", "f16", 0, clip_norm=1.0),
        applied=[12, 12], credit=2, max_frame_bytes=1048576, features=["dropped", "wide"],
    )  # fmt: skip
    rows: list[tuple[str, str, protocol.Message]] = [
        ("a new replica says hello", "replica", p.Hello(protocol=1, replica=None, run=None, backend="wasm")),
        ("a replica continues after a reconnect", "replica",
         p.Hello(protocol=1, replica="67414f80a1b2c3d4", run="3f0c5a9d2b11", backend="webgpu")),
        ("a replica says what it understands", "replica",
         p.Hello(protocol=1, replica=None, run=None, backend="wasm", features=["unleased"])),
        ("a replica that is back says what it trains", "replica",
         p.Hello(protocol=1, replica="67414f80a1b2c3d4", run="3f0c5a9d2b11", backend="wasm", leases=[3, 4])),
        ("a replica with a signed id continues", "replica",
         p.Hello(protocol=1, replica="67414f80a1b2c3d45f1e0d9c8b7a6958", run="3f0c5a9d2b11", backend="wasm")),
        ("a fetch with nothing", "replica", p.Fetch(have=[-1, -1])),
        ("a fetch with the largest version", "replica", p.Fetch(have=[2**53 - 1, 0])),
        ("a lease of two chunks", "replica", p.Lease(count=2)),
        ("a lease is trained", "replica", p.Trained(lease=3)),
        ("leases are released", "replica", p.Release(leases=[3, 4])),
        ("a replica gives up", "replica", p.Useless(minibatches=20)),
        ("minibatches gave no finite numbers", "replica", p.Dropped(minibatches=3)),
        ("as many minibatches as one message may drop", "replica", p.Dropped(minibatches=1000)),
        ("an item of JSON", "replica", p.Item(number=1, json=msgspec.Raw(b'{"strokes":[[0,1.5],[2,3]],"label":7}'))),
        ("an item of null", "replica", p.Item(number=2**53 - 1, json=msgspec.Raw(b"null"))),
        ("a welcome", "gateway", welcome),
        ("a welcome to a job that takes items", "gateway", msgspec.structs.replace(
            welcome, stream=p.StreamLimits(16, 65536), features=["dropped", "wide", "items"])),
        ("a welcome to a module", "gateway", msgspec.structs.replace(welcome, model="module")),
        ("a welcome to a job that gives predictions", "gateway", msgspec.structs.replace(
            welcome, predict="/jobs/mnist/3f0c5a9d2b11/predict")),
        ("a welcome that says where the chunks are", "gateway", msgspec.structs.replace(
            welcome, contents=NAME, chunk_url="https://cdn.example/mnist/")),
        ("a welcome to a job that clips every element", "gateway", msgspec.structs.replace(
            welcome, training=msgspec.structs.replace(welcome.training, clip_value=0.5, clip_norm=None))),
        ("accepted", "gateway", p.Ack(shard=0, sequence=7, status="accepted", version=812)),
        ("duplicate", "gateway", p.Ack(shard=1, sequence=7, status="duplicate")),
        ("busy", "gateway", p.Ack(shard=0, sequence=8, status="busy", retry_seconds=0.25)),
        *((f"rejected: {reason}", "gateway", p.Ack(shard=0, sequence=9, status="rejected", reason=reason))
          for reason in ("not-finite", "future-version", "not-running", "expired", "unleased")),
        ("leased", "gateway", p.Leased(leases=[p.Grant(3, 1, 0, 512, 60.0), p.Grant(4, 1, 2, 100, 60.0)])),
        ("leased with the chunks' names", "gateway", p.Leased(leases=[
            p.Grant(3, 1, 0, 512, 60.0, NAME), p.Grant(4, 1, 2, 100, 60.0, "0" * 64)])),
        ("wait", "gateway", p.Wait(seconds=1.0)),
        ("wait for the warm-up", "gateway", p.Wait(seconds=1.5, reason="warmup")),
        ("wait for the first rows of the pool", "gateway", p.Wait(seconds=2.0, reason="pool")),
        ("rows of the pool", "gateway", p.Leased(leases=[p.Grant(40, 0, 40, 128, 60.0, NAME)])),
        ("an item gave rows", "gateway", p.ItemAnswer(number=7, status="rows", rows=3)),
        ("an item was discarded", "gateway", p.ItemAnswer(number=8, status="discarded")),
        ("an item was rejected", "gateway", p.ItemAnswer(number=9, status="rejected", why="it took longer than 5 s")),
        ("an item is to come again", "gateway", p.ItemAnswer(number=10, status="busy", retry_seconds=0.25)),
        ("finished", "gateway", p.Finished(reason="until")),
        ("finished for lack of improvement", "gateway", p.Finished(reason="patience")),
        ("an error", "gateway", p.ErrorMessage(code=4004, message="no job named 'nope'")),
        ("an error that will pass", "gateway", p.ErrorMessage(code=1013, message="Redis is away", retry_seconds=1.0)),
    ]  # fmt: skip
    return [
        {"name": name, "from": side, "text": protocol.encode(message), "message": json.loads(protocol.encode(message))}
        for name, side, message in rows
    ]


def gradient(**changes: Any) -> frames.Frame:
    """A well-formed int8 gradient of shard 1 with 1,000 values, with `changes`."""
    payload = struct.pack("<f", 0.5) + bytes(range(250)) * 4
    fields: dict[str, Any] = {
        "kind": frames.Kind.GRADIENT, "codec": 2, "shard": 1, "count": 1000, "sequence": 1, "version": 0,
        "loss": 2.5, "rows": 100, "minibatches": 1, "payload": payload,
    }  # fmt: skip
    return frames.Frame(**(fields | changes))


def frame_rows() -> list[dict[str, Any]]:
    """Frames with every header field at ordinary and extreme values."""
    rows = {
        "an int8 gradient": gradient(),
        "a gradient of many minibatches": gradient(minibatches=64, rows=6400, sequence=2**53 - 1, version=2**53 - 1),
        "an f32 gradient": gradient(codec=0, shard=65535, count=3, payload=struct.pack("<3f", 1, -2, 0.5)),
        "f32 parameters": gradient(
            kind=frames.Kind.PARAMETERS, codec=0, shard=0, count=2, sequence=0, version=812, loss=0.0, rows=0,
            minibatches=0, payload=struct.pack("<2f", 0.25, -1e-30),
        ),
        "f16 parameters": gradient(
            kind=frames.Kind.PARAMETERS, codec=1, shard=0, count=2, sequence=0, version=1, loss=0.0, rows=0,
            minibatches=0, payload=struct.pack("<2e", 0.25, -1),
        ),
        "no values": gradient(codec=0, count=0, payload=b""),
    }  # fmt: skip
    return [
        {"name": name, "hex": frames.pack(frame).hex(), "frame": _frame_fields(frame)} for name, frame in rows.items()
    ]


def _frame_fields(frame: frames.Frame) -> dict[str, Any]:
    names = ("codec", "shard", "count", "sequence", "version", "loss", "rows", "minibatches")
    fields: dict[str, Any] = {name: getattr(frame, name) for name in names}
    return {"kind": int(frame.kind)} | fields | {"payload_hex": bytes(frame.payload).hex()}


def item_rows() -> list[dict[str, Any]]:
    """Items with the first and the last number, with bytes and without."""
    rows = {"bytes": (1, bytes(range(256))), "the last number": (2**53 - 1, b"\x00"), "nothing": (7, b"")}
    return [
        {"name": name, "hex": frames.pack_item(number, payload).hex(), "number": number, "payload_hex": payload.hex()}
        for name, (number, payload) in rows.items()
    ]


def malformed() -> list[dict[str, Any]]:
    """What a replica must never send, and the close code that answers it."""
    texts = {
        "not JSON": "hello",
        "empty": "",
        "a number": "7",
        "an array": "[]",
        "no type": "{}",
        "an unknown type": '{"type":"shout"}',
        "a gateway's message": '{"type":"wait","seconds":1.0}',
        "deep nesting": "[" * 5000,
        "hello without a protocol": '{"type":"hello","replica":null,"run":null,"backend":"wasm"}',
        "hello with a protocol in words":
            '{"type":"hello","protocol":"one","replica":null,"run":null,"backend":"wasm"}',
        "hello with a short replica": '{"type":"hello","protocol":1,"replica":"67414f80","run":null,"backend":"wasm"}',
        "hello with an upper-case replica":
            '{"type":"hello","protocol":1,"replica":"67414F80A1B2C3D4","run":null,"backend":"wasm"}',
        "hello with a long backend": json.dumps(
            {"type": "hello", "protocol": 1, "replica": None, "run": None, "backend": "w" * 33}),
        "fetch without have": '{"type":"fetch"}',
        "fetch of version -2": '{"type":"fetch","have":[-2,0]}',
        "fetch of half a version": '{"type":"fetch","have":[0.5,0]}',
        "fetch over 2^53 - 1": '{"type":"fetch","have":[9007199254740992,0]}',
        "fetch of too few shards": '{"type":"fetch","have":[0]}',
        "lease of nothing": '{"type":"lease","count":0}',
        "lease of too much": '{"type":"lease","count":17}',
        "trained without a lease": '{"type":"trained"}',
        "release of -1": '{"type":"release","leases":[-1]}',
        "useless of no minibatches": '{"type":"useless","minibatches":0}',
        "dropped no minibatches": '{"type":"dropped","minibatches":0}',
        "dropped 1,001 minibatches": '{"type":"dropped","minibatches":1001}',
        "dropped half a minibatch": '{"type":"dropped","minibatches":0.5}',
        "an item without a number": '{"type":"item","json":1}',
        "an item of nothing": '{"type":"item","number":1}',
        "an item 0": '{"type":"item","number":0,"json":1}',
        "an item over 2^53 - 1": '{"type":"item","number":9007199254740992,"json":1}',
        "an item of no JSON": '{"type":"item","number":1,"json":NaN}',
        "release of 65 leases": json.dumps({"type": "release", "leases": list(range(65))}),
    }  # fmt: skip
    good = frames.pack(gradient())
    broken = {
        "empty frame": b"",
        "39 bytes": good[:39],
        "kind 0": b"\x00" + good[1:],
        "kind 4": b"\x04" + good[1:],
        "reserved bits": good[:36] + b"\x01\x00\x00\x00" + good[40:],
        "sequence over 2^53 - 1": good[:8] + struct.pack("<Q", 2**53) + good[16:],
        "version over 2^53 - 1": good[:16] + struct.pack("<Q", 2**53) + good[24:],
    }
    item = frames.pack_item(7, b"raw")
    items = {
        "a short header": item[:15],
        "a reserved byte": item[:7] + b"\x01" + item[8:],
        "number 0": frames.pack_item(0, b"raw"),
        "a number over 2^53 - 1": frames.pack_item(2**53, b"raw"),
    }
    misfits = {
        "parameters from a replica": gradient(kind=frames.Kind.PARAMETERS),
        "an unknown codec": gradient(codec=3),
        "a codec that the job does not use": gradient(codec=0, payload=bytes(4000)),
        "an unknown shard": gradient(shard=2),
        "one value less than the shard": gradient(count=999),
        "one byte less than its codec": gradient(payload=bytes(1003)),
        "one byte more than its codec": gradient(payload=bytes(1005)),
        "header only": gradient(payload=b""),
        "sequence 0": gradient(sequence=0),
        "no minibatch": gradient(minibatches=0),
    }
    return [
        *({"name": name, "of": "text", "text": text, "close": 4000} for name, text in texts.items()),
        *({"name": name, "of": "frame", "hex": data.hex(), "close": 4005} for name, data in broken.items()),
        *({"name": name, "of": "item", "hex": data.hex(), "close": 4005} for name, data in items.items()),
        *({"name": name, "of": "gradient", "hex": frames.pack(f).hex(), "close": 4005} for name, f in misfits.items()),
    ]


def codec_rows() -> list[dict[str, Any]]:
    """Values, noise and payload of every codec, with the awkward cases."""
    rng = np.random.default_rng(20121203)  # the NIPS 2012 conference, where Downpour SGD was presented
    uneven = (rng.normal(size=1500) * np.exp(rng.normal(size=1500) * 4)).astype(np.float32)
    cases: dict[str, Any] = {
        "one value": [0.5],
        "zeros": np.zeros(5),
        "a signed zero": [-0.0, 0.0],
        "both ends of a scale": [127.0, -127.0, 63.5, -63.5, 0.25],
        "subnormal numbers": [1e-45, -1e-40, 1e-38],
        "the largest floats": [3.4028234663852886e38, -3.4028234663852886e38, 1.0],
        "halfway between halves": [1.00048828125, 1.00146484375, 65504.0, 65519.0, 65520.0, 1e6, -1e6],
        "a block and a half": uneven,
        "exactly one block": uneven[:1024],
        "a zero block, then another": np.concatenate([np.zeros(1024), [1.0, -1.0]]),
    }
    rows = []
    for name, given in cases.items():
        values = np.asarray(given, np.float32)
        for codec in codecs.BY_NAME.values():
            uniforms = rng.random(values.size, np.float32)
            payload = codec.encode(values, FixedUniforms(uniforms))  # type: ignore[arg-type]
            decoded = np.empty_like(values)
            codec.decode(payload, decoded)
            rows.append({
                "name": f"{codec.name}: {name}", "codec": codec.name,
                "values_hex": values.tobytes().hex(), "uniforms_hex": uniforms.tobytes().hex(),
                "payload_hex": payload.hex(), "decoded_hex": decoded.tobytes().hex(),
            })  # fmt: skip
    return rows


def refused() -> list[dict[str, Any]]:
    """Payloads that a codec must not accept."""
    inf, nan = float("inf"), float("nan")
    rows: list[tuple[str, str, int, bytes, str]] = [
        ("f32: infinite", "f32", 2, struct.pack("<2f", 1, inf), "not-finite"),
        ("f32: NaN", "f32", 2, struct.pack("<2f", nan, 1), "not-finite"),
        ("f32: short", "f32", 2, bytes(7), "length"),
        ("f16: minus infinity", "f16", 2, struct.pack("<2e", 1, -inf), "not-finite"),
        ("f16: NaN", "f16", 1, struct.pack("<e", nan), "not-finite"),
        ("f16: long", "f16", 1, bytes(3), "length"),
        ("int8: infinite scale", "int8", 1, struct.pack("<fb", inf, 1), "not-finite"),
        ("int8: NaN scale", "int8", 1, struct.pack("<fb", nan, 1), "not-finite"),
        ("int8: negative scale", "int8", 1, struct.pack("<fb", -1, 1), "not-finite"),
        ("int8: scale that overflows", "int8", 1, struct.pack("<fb", 3e38, 127), "not-finite"),
        ("int8: second scale missing", "int8", 1025, struct.pack("<f", 1) + bytes(1025), "length"),
    ]
    return [
        {"name": name, "codec": codec, "count": count, "payload_hex": payload.hex(), "error": error}
        for name, codec, count, payload, error in rows
    ]


def precision_rows() -> list[dict[str, Any]]:
    """Shards, and which codecs hold their values."""
    rng = np.random.default_rng(16)
    weights = rng.normal(size=100) * 0.05
    cases: dict[str, tuple[Any, list[list[int]]]] = {
        "ordinary weights": (weights, [[0, 100]]),
        "zeros": (np.zeros(3), [[0, 3]]),
        "a bias of 200,000": ([200_000.0], [[0, 1]]),
        "a bias of -70,000 beside weights": ([*weights, -70_000.0], [[0, 100], [100, 101]]),
        "2,048": ([2048.0, -2048.0], [[0, 2]]),
        "a little over 2,048": ([2048.0002], [[0, 1]]),
        "a slope of 1e-6": ([1e-6], [[0, 1]]),
        "a slope of -1e-9 beside an offset": ([3.0, -1e-9], [[0, 2]]),
        "the smallest float": ([1e-45], [[0, 1]]),
        "tiny, but f16 holds them": ([2.0**-24, -3 * 2.0**-20, 2.0**-15], [[0, 3]]),
        "one tiny value of 64": ([1e-6] + [1.0] * 63, [[0, 64]]),
        "one tiny value of 65": ([1e-6] + [1.0] * 64, [[0, 65]]),
        "65 tiny values": ([1e-6] * 65, [[0, 65]]),
        "a tiny array behind ordinary weights": ([*weights, 1e-6], [[0, 100], [100, 101]]),
        "a large tiny array behind ordinary weights": ([*weights, *weights * 1e-4], [[0, 100], [100, 200]]),
    }
    rows = []
    for name, (given, arrays) in cases.items():
        values = np.asarray(given, np.float32)
        slices = [slice(start, end) for start, end in arrays]
        held = {codec: precision.holds(codec, values, slices) for codec in codecs.BY_NAME}
        rows.append({"name": name, "values_hex": values.tobytes().hex(), "arrays": arrays, "holds": held})
    return rows


def local_step_rows() -> list[dict[str, Any]]:
    """Local steps: where nothing bounds them, where each of the clips does, and where the reach does."""
    cases: dict[str, tuple[list[float], float, float | None, float | None, float]] = {
        "nothing bounds it": ([3.0, -4.0, 0.0], 0.5, None, None, 1e30),
        "clipped by value": ([3.0, -4.0, 0.5], 0.5, 2.0, None, 1e30),
        "clipped by norm": ([48.0, -64.0, 0.0], 0.5, None, 5.0, 1e30),
        "short enough for every clip": ([3.0, -4.0, 0.0], 0.5, 4.0, 5.0, 1e30),
        "clipped by value, then by norm": ([30.0, -4.0, 0.0], 0.5, 3.0, 2.5, 1e30),
        "no farther than the service moves": ([48.0, -64.0, 0.0], 0.5, None, 5.0, 0.625),
        "the service does not move": ([48.0, -64.0, 0.0], 0.5, None, 5.0, 0.0),
        "no local learning rate": ([48.0, -64.0, 0.0], 0.0, None, 5.0, 1.0),
        "a gradient of zero": ([0.0, 0.0, 0.0], 0.5, None, 5.0, 1.0),
        "squares that overflow float32": ([3 * 2.0**100, -(2.0**102), 0.0], 0.5, None, 5.0, 0.625),
    }
    values = np.array([10, 20, 30], np.float32)
    rows = []
    for name, (given, rate, clip_value, clip_norm, reach) in cases.items():
        gradient = np.asarray(given, np.float32)
        training = protocol.ReplicaTraining(1, 1, rate, 8, 2, "int8", "f16", 0, clip_value, clip_norm)
        rows.append({
            "name": name, "gradient_hex": gradient.tobytes().hex(), "values_hex": values.tobytes().hex(),
            "stepped_hex": (values - local_step(gradient, training, reach)).tobytes().hex(), "reach": reach,
            "training": {"local_learning_rate": rate, "clip_value": clip_value, "clip_norm": clip_norm},
        })  # fmt: skip
    return rows


def wide_rows() -> list[dict[str, Any]]:
    """Frames of one shard of 3 values in the job's codec, in f32 instead of it, and in others."""
    nan = float("nan")
    wide = struct.pack("<3f", 200_000, -1e-9, 0.5)
    payloads = {"f32": wide, "f16": struct.pack("<3e", 2, -1, 0.5), "int8": struct.pack("<f3b", 0.5, 4, -2, 1)}
    decoded = {"f32": [200_000, -1e-9, 0.5], "f16": [2, -1, 0.5], "int8": [2, -1, 0.5]}
    rows = []
    for kind in ("parameters", "gradient"):
        for job in codecs.BY_NAME:
            for codec, payload in payloads.items():
                fits = codec == job or (codec == "f32" and (kind == "parameters" or job == "f16"))
                rows.append((kind, job, f"{codec} where the job has {job}", codec, payload, decoded[codec], fits))
        rows.append((kind, "f16", "f32 of too few bytes where the job has f16", "f32", wide[:6], [], False))
        rows.append((kind, "f16", "NaN in f32 where the job has f16", "f32", struct.pack("<3f", 1, nan, 1), [], False))
    return [
        {"name": f"{kind}: {name}", "kind": kind, "codec": job,
         "hex": frames.pack(_of_three(kind, codecs.BY_NAME[codec].number, payload)).hex(),
         "values_hex": np.asarray(values, "<f4").tobytes().hex() if fits else None}
        for kind, job, name, codec, payload, values, fits in rows
    ]  # fmt: skip


def _of_three(kind: str, codec: int, payload: bytes) -> frames.Frame:
    if kind == "gradient":
        return gradient(codec=codec, shard=0, count=3, payload=payload)
    return gradient(
        kind=frames.Kind.PARAMETERS, codec=codec, shard=0, count=3, sequence=0, version=7, loss=0.0, rows=0,
        minibatches=0, payload=payload,
    )  # fmt: skip


def random_rows() -> list[dict[str, Any]]:
    """Seeds, and what the replicas' generator makes of them."""
    seeds = [(1,), (0, 0, 0), (0, 3, 17), (7, 0, 1), (2**32 - 1, 9), (2**40 + 5, 1, 2), (-1, 2)]
    rows = []
    for each in seeds:
        numbers = Random(*each)
        bits = [numbers.bits() for _ in range(8)]
        order = Random(*each).permutation(30).tolist()
        rows.append({"name": f"seeds {each}", "seeds": list(each), "bits": bits, "order": order})
    return rows


def chunk_rows() -> list[dict[str, Any]]:
    """Chunks that are what their names say, of lengths that SHA-256 pads in other ways, and some that are not."""
    rng = np.random.default_rng(256)
    rows = []
    for length in (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 1000):
        body = rng.bytes(length)
        rows.append(
            {"name": f"{length} bytes", "hex": body.hex(), "sha256": sha256(body).hexdigest(), "is_whole": True}
        )
    name = sha256(bytes(100)).hexdigest()
    broken = {"another bit": bytes(99) + b"\x01", "a byte less": bytes(99), "a byte more": bytes(101), "nothing": b""}
    rows += [{"name": what, "hex": body.hex(), "sha256": name, "is_whole": False} for what, body in broken.items()]
    return rows


def build() -> dict[str, str]:
    """Every vector file's name and text."""
    content = {
        "messages": messages(), "frames": frame_rows(), "items": item_rows(), "malformed": malformed(),
        "codecs": codec_rows(), "refused": refused(), "random": random_rows(), "chunks": chunk_rows(),
        "precision": precision_rows(), "wide": wide_rows(), "local-steps": local_step_rows(),
    }  # fmt: skip
    return {
        f"{name}.json": "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"
        for name, rows in content.items()
    }


if __name__ == "__main__":
    for file, text in build().items():
        (FOLDER / file).write_text(text)
        sys.stdout.write(f"{file}: {len(text):,} bytes\n")
