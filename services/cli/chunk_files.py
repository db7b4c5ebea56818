"""Writes a job's training chunks as files, for a server of its author's: each under its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crowdlearn import files
from crowdlearn.contents import name_of
from crowdlearn.files import Folder
from crowdlearn.spec import JobSpec


def chunk_folder(where: str) -> Folder:
    """The folder or bucket; raises FileError or SetupError where nothing can be written."""
    place = files.folder(where)
    place.require_writable()
    return place


@dataclass(frozen=True)
class Exported:
    """Chunks that are written into `place` as they pass, and the list of their names after them, under its own."""

    chunks: Iterable[bytes]
    place: Folder

    def __iter__(self) -> Iterator[bytes]:
        # A file of that name has these bytes: it was written whole.
        there, contents = set(self.place.names()), bytearray()
        for chunk in self.chunks:
            name = name_of(chunk)
            if name not in there:
                self.place.write(name, chunk)
            contents += bytes.fromhex(name)
            yield chunk
        self.place.write(name_of(bytes(contents)), bytes(contents))


def exported_words(spec: JobSpec, where: str) -> str:
    """What to do with the files."""
    chunks = f"{spec.train_chunks:,} chunk{'' if spec.train_chunks == 1 else 's'}"
    if spec.chunk_url is None:
        return (
            f"{where} holds the {chunks}. Nobody looks for them: name the address that they will have, "
            "Data(chunk_url='https://...'), and submit the job again."
        )
    # Browsers give a page nothing of another origin that does not allow it.
    return f"{where} holds the {chunks}: upload them to {spec.chunk_url}, with an Access-Control-Allow-Origin header."
