"""What a job's author says of its rows: where they come from. They are read by `dataset`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crowdlearn.dataset import layout_of
from crowdlearn.errors import JobError
from crowdlearn.fields import explained
from crowdlearn.protocol import BatchArray
from crowdlearn.sources import File, source_of
from crowdlearn.stream import Stream


@explained
@dataclass(frozen=True)
class Data:
    """What a model learns from, and what it is tested on: arrays by name, with the rows as their first axis; or a
    source of rows that need not fit memory (docs/data.md).

    Types: float32, int8 to int32, uint8 to uint32 and bool are kept: images as uint8 are a quarter of the bytes.
    Other floats become float32, int64 and uint64 become 32 bits wide if every value fits. Any byte order will do.

    Args:
        train: what replicas compute gradients from: arrays by name, also of `np.load(file, mmap_mode="r")`; the path of
            a `File`; a `File`; `Rows` or `Batches` of a function; or a dataset of Hugging Face. Rows are shuffled
            once, from the job's seed.
        held_out: what the evaluator scores, likewise; at least the arrays of `train`. None: nothing is scored.
        chunk_url: where replicas find the training rows before they ask the gateway: the address of a folder that holds
            what `crowdlearn submit --export-chunks` has written, such as https://cdn.example/digits/.
        stream: what replicas send raw, and `Job.preprocess` makes rows of: instead of `train`, or after its epochs.

    Raises:
        JobError: `chunk_url` is no such address, or there is neither `train` nor a stream.
    """

    train: Any = None
    held_out: Any = None
    chunk_url: str | None = None
    stream: Stream | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stream, Stream | None):
            raise JobError(f"stream expects Stream(schema={{...}}), got {self.stream!r:.80}")
        if self.train is None:
            self._require_stream()
        if self.chunk_url is not None:
            object.__setattr__(self, "chunk_url", _folder_url(self.chunk_url))

    def _require_stream(self) -> None:
        if self.stream is None:
            raise JobError(f"Data expects train, or a stream, got {'neither' if self.held_out is None else 'held_out'}")
        if self.chunk_url is not None:
            raise JobError(f"chunk_url {self.chunk_url!r:.80} is of training rows: it expects train, got only a stream")

    @property
    def has_held_out(self) -> bool:
        """Whether there are held-out rows, or are to be once replicas have sent some."""
        return self.held_out is not None or (self.stream is not None and self.stream.held_out_every > 0)

    def layout(self) -> tuple[BatchArray, ...]:
        """The arrays of a training row; of a source only the first rows are read. Raises as `dataset.read` does."""
        if self.train is None and self.stream is not None:
            return self.stream.layout
        return layout_of(self.train, "training")

    def beside(self, folder: Path) -> Data:
        """The same data, if its paths were relative to `folder`."""
        train, held_out = (
            source.beside(folder) if isinstance(source := source_of(given), File) else given
            for given in (self.train, self.held_out)
        )
        return replace(self, train=train, held_out=held_out)


def _folder_url(given: Any) -> str:
    """The address of a folder, with a slash at its end."""
    with suppress(ValueError):
        parts = urlsplit(given if isinstance(given, str) and given.isprintable() and " " not in given else "")
        more = parts.username or parts.query or parts.fragment
        if parts.scheme in ("http", "https") and parts.hostname and not more:
            return f"{given.rstrip('/')}/"
    raise JobError(
        f"chunk_url expects the public address of a folder, such as https://cdn.example/digits/, got {given!r:.80}"
    )
