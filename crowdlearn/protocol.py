"""The text messages and close codes of docs/protocol.md, as types. Does no I/O and makes no decision."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from crowdlearn.errors import MessageError

T = TypeVar("T")

VERSION = 1
REPLICA_ID = r"^([0-9a-f]{16}|[0-9a-f]{32})$"
"""As gateways give it: an id, signed unless its run was submitted before ids were."""
RUN_ID = r"^[0-9a-f]{12}$"

CHUNK_NAME = r"^[0-9a-f]{64}$"
"""What names a chunk, and a run's contents: a SHA-256."""

Natural = Annotated[int, Meta(ge=0, le=2**53 - 1)]
ItemNumber = Annotated[int, Meta(ge=1, le=2**53 - 1)]
"""Of a replica's items: 1, 2, 3, ..."""

FEATURES = ("dropped", "wide", "items")
"""What a gateway of this version understands beyond the first edition of protocol 1, as `welcome` lists it: the message
`dropped`, gradients as f32 in a job whose `push_codec` is smaller, and raw items."""

REPLICA_FEATURES = ("unleased",)
"""What a replica of this version understands beyond the first edition, as `hello` lists it: that reason of an ack."""

MAX_WHY = 200
"""Characters of what a sender is told of an item that was rejected."""

ModelKind = Literal["program", "module"]
CodecName = Literal["f32", "f16", "int8"]


class Close(IntEnum):
    """Why a socket is closed; what a client should do is in docs/protocol.md."""

    NORMAL = 1000
    TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013
    MALFORMED_MESSAGE = 4000
    HELLO_TIMEOUT = 4001
    UNSUPPORTED_PROTOCOL = 4002
    OUT_OF_ORDER = 4003
    UNKNOWN_JOB = 4004
    MALFORMED_FRAME = 4005
    FLOODING = 4006


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """One text message. The subclass's tag is its `type`."""


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """A replica's first message; `replica` and `run` continue an identity after a reconnect."""

    protocol: int
    replica: Annotated[str, Meta(pattern=REPLICA_ID)] | None
    run: Annotated[str, Meta(pattern=RUN_ID)] | None
    backend: Annotated[str, Meta(max_length=32)]
    features: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=16)] = []
    """What the replica understands beyond the first edition of protocol 1 (see REPLICA_FEATURES)."""
    leases: Annotated[list[Natural], Meta(max_length=64)] = []
    """What a replica that is back still trains: of other leases it may not know."""


class Fetch(Message, frozen=True, kw_only=True, tag="fetch"):
    """Asks once for each shard whose newest version differs from `have` (-1: none)."""

    have: list[Annotated[int, Meta(ge=-1, le=2**53 - 1)]]


class Lease(Message, frozen=True, kw_only=True, tag="lease"):
    """Asks for up to `count` chunks to train on."""

    count: Annotated[int, Meta(ge=1, le=16)]


class Trained(Message, frozen=True, kw_only=True, tag="trained"):
    """All rows of a lease are in acknowledged gradients."""

    lease: Natural


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """Gives leases back untrained."""

    leases: Annotated[list[Natural], Meta(max_length=64)]


class Useless(Message, frozen=True, kw_only=True, tag="useless"):
    """The last words of a replica that gives up: so many minibatches in a row, none with a finite loss and gradient."""

    minibatches: Annotated[int, Meta(ge=1, le=1000)]


class Dropped(Message, frozen=True, kw_only=True, tag="dropped"):
    """So many minibatches are in no gradient, because a loss or a gradient was not finite; said before `trained`."""

    minibatches: Annotated[int, Meta(ge=1, le=1000)]


class Item(Message, frozen=True, kw_only=True, tag="item"):
    """Raw data of an interaction as JSON, for the author's `preprocess`; bytes come in a frame (crowdlearn.frames)."""

    number: ItemNumber
    json: msgspec.Raw
    """Any JSON value, as it was written."""


class Shard(msgspec.Struct, frozen=True):
    """A contiguous slice of the flat parameter vector: `size` values from `offset`."""

    offset: int
    size: int

    @property
    def slice(self) -> slice:
        """The shard as a slice of the flat vector."""
        return slice(self.offset, self.offset + self.size)


class ParameterArray(msgspec.Struct, frozen=True):
    """Where one named array lies in the flat vector; `offset` in values."""

    name: str
    shape: tuple[int, ...]
    offset: int


class BatchArray(msgspec.Struct, frozen=True):
    """One named array of a batch; `shape` is that of a row."""

    name: str
    dtype: Literal["float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool"]
    shape: tuple[int, ...]


class BatchLayout(msgspec.Struct, frozen=True):
    """The rows of a minibatch and the arrays that a row has."""

    rows: int
    arrays: tuple[BatchArray, ...]


class ItemOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a raw item: `rows` rows of it are in the pool, or `why` there are none.

    `discarded`: the job had no use for it. `why` is for the sender, in at most MAX_WHY characters.
    """

    status: Literal["rows", "discarded", "rejected"]
    rows: int = 0
    why: str | None = None


class ReplicaTraining(msgspec.Struct, frozen=True):
    """The hyperparameters that a replica needs."""

    n_push: int
    n_fetch: int
    local_learning_rate: float
    max_accumulate: int
    max_ahead: int
    push_codec: CodecName
    fetch_codec: CodecName
    seed: int
    clip_value: float | None = None
    """The service clips every element of a minibatch's gradient to [-clip_value, clip_value]; local steps do too."""
    clip_norm: float | None = None
    """The service scales a shard's gradient of a minibatch down to this Euclidean norm; local steps do too."""


class StreamLimits(msgspec.Struct, frozen=True):
    """What a replica may send of raw items."""

    items_in_flight: int
    """Items that may be unanswered at a time."""
    max_item_bytes: int
    """Bytes of the largest item, its JSON as UTF-8."""


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The gateway's answer to hello: everything a replica needs to start."""

    job: str
    run: str
    replica: str
    state: Literal["running", "finished"]
    program: str
    model: ModelKind = "program"
    """What `program` is the address of: a traced program (JSON), or an ES module (JavaScript)."""
    predict: str | None = None
    """The address of the forward program; None in a job that gives no predictions."""
    parameters: tuple[ParameterArray, ...]
    shards: tuple[Shard, ...]
    batch: BatchLayout
    training: ReplicaTraining
    applied: list[int]
    credit: int
    max_frame_bytes: int
    contents: Annotated[str, Meta(pattern=CHUNK_NAME)] | None = None
    """The name of the list of the chunks' names; None in a run that has none."""
    chunk_url: str | None = None
    """Where the chunks are by their names, before the gateway is asked; ends with a slash."""
    stream: StreamLimits | None = None
    """None in a job that takes no raw items."""
    features: list[str] = []
    """What the gateway understands beyond the first edition of protocol 1 (see FEATURES); others are ignored."""


AckStatus = Literal["accepted", "duplicate", "busy", "rejected"]
RejectReason = Literal["not-finite", "future-version", "not-running", "expired", "unleased"]


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Answers one gradient frame; `version`, if accepted, is the shard's that will hold it, or a little earlier."""

    shard: int
    sequence: int
    status: AckStatus
    reason: RejectReason | None = None
    retry_seconds: float | None = None
    version: Natural | None = None


class ItemAnswer(Message, frozen=True, kw_only=True, tag="item_answer"):
    """Answers one item: what became of it, or `busy`: it and all later ones are to come again after `retry_seconds`."""

    number: int
    status: Literal["rows", "discarded", "rejected", "busy"]
    rows: int = 0
    why: str | None = None
    retry_seconds: float | None = None


class Grant(msgspec.Struct, frozen=True):
    """One leased chunk. `lease` counts chunks over all epochs, `chunk` is its index in the dataset.

    Of rows of the pool: `chunk` is the lease's number too, and `epoch` is 0.
    """

    lease: int
    epoch: int
    chunk: int
    rows: int
    seconds: float
    sha256: Annotated[str, Meta(pattern=CHUNK_NAME)] | None = None
    """The chunk's name: what its bytes hash to. None in a run that was submitted before chunks had names."""


class Leased(Message, frozen=True, kw_only=True, tag="leased"):
    """Chunks to train on."""

    leases: list[Grant]


class Wait(Message, frozen=True, kw_only=True, tag="wait"):
    """No chunk is free now. `reason` is `warmup` while one replica trains alone at first, or `pool` while the pool has
    no rows yet; others may come."""

    seconds: float
    reason: str | None = None


class Finished(Message, frozen=True, kw_only=True, tag="finished"):
    """The job has ended."""

    reason: str


class ErrorMessage(Message, frozen=True, kw_only=True, tag="error"):
    """Why the socket is about to be closed. `retry_seconds`: no attempt before is of use."""

    code: int
    message: str
    retry_seconds: float | None = None


FromReplica = Hello | Fetch | Lease | Trained | Release | Useless | Dropped | Item
FromGateway = Welcome | Ack | ItemAnswer | Leased | Wait | Finished | ErrorMessage

_from_replica: msgspec.json.Decoder[FromReplica] = msgspec.json.Decoder(FromReplica)
_from_gateway: msgspec.json.Decoder[FromGateway] = msgspec.json.Decoder(FromGateway)
_encode = msgspec.json.Encoder().encode


def encode(message: Message) -> str:
    """Returns the message as JSON text."""
    return _encode(message).decode()


def decode_from_replica(text: str | bytes) -> FromReplica:
    """Reads a replica's message.

    Raises:
        MessageError: not JSON, an unknown type, a missing field or a wrong type; the message names the field.
    """
    return _decode(_from_replica, text)


def decode_from_gateway(text: str | bytes) -> FromGateway:
    """Reads a gateway's message; raises MessageError like decode_from_replica."""
    return _decode(_from_gateway, text)


def _decode(decoder: msgspec.json.Decoder[T], text: str | bytes) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"expected a message of docs/protocol.md: {error}") from error
