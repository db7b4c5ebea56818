"""The errors that a person can act on. Each message says what was expected and what came."""

from __future__ import annotations


class CrowdLearnError(Exception):
    """The base of everything that CrowdLearn raises on purpose."""


class JobError(CrowdLearnError):
    """A job is not well formed: a wrong shape, an unknown optimizer, a missing array."""


class UnsupportedModelError(JobError):
    """A model uses a primitive that browsers cannot execute."""


class UnknownJobError(CrowdLearnError):
    """No job of that name is in this Redis."""


class MessageError(CrowdLearnError):
    """A text message is not one of docs/protocol.md."""


class FrameError(CrowdLearnError):
    """A binary message is not a frame of docs/protocol.md, or does not fit its shard."""


class NotFiniteError(CrowdLearnError):
    """A gradient holds NaN or infinity."""


class StoreUnavailableError(CrowdLearnError):
    """Redis did not answer."""


class StoreFullError(StoreUnavailableError):
    """Redis has no memory left for this."""


class StoreRefusedError(StoreUnavailableError):
    """Redis answered, and does not let us in or not do what we ask. It was logged; it passes when an operator acts."""


class NoSuchStoreError(StoreUnavailableError):
    """What answers at the address is no Redis, or one without the database that the address names."""


class OutdatedError(CrowdLearnError):
    """A commit came from an old owner of a shard, or from an unexpected version. Reload the shard."""


class SetupError(CrowdLearnError):
    """Something that the machine lacks: Chromium, a free port, JAX, the browser bundle."""


class EndedError(CrowdLearnError):
    """A replica has ended, and nobody knows what became of what it was to send."""


class FileError(CrowdLearnError):
    """A file or a bucket could not be read or written."""
