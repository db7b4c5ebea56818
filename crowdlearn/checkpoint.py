"""Keeps snapshots of a run in a folder, here or in a bucket, and reads them back. Knows no Redis.

FOLDER/latest.json                                  which one is the newest
FOLDER/VERSION-RUN/parameters.safetensors           the parameters, by their names
FOLDER/VERSION-RUN/optimizer.safetensors            the optimizer's slots: `0/W1` is the first slot of `W1`
FOLDER/VERSION-RUN/checkpoint.json                  all else; written last, so that what has it is whole
"""

from __future__ import annotations

import logging

import msgspec
import numpy as np

from crowdlearn import files, weights
from crowdlearn.errors import FileError, JobError
from crowdlearn.files import Folder, Where
from crowdlearn.snapshot import Snapshot, Work
from crowdlearn.spec import JobSpec

log = logging.getLogger(__name__)

LATEST = "latest.json"
ABOUT = "checkpoint.json"
PARAMETERS = "parameters.safetensors"
OPTIMIZER = "optimizer.safetensors"

FORMAT = 1
"""Of checkpoint.json: a newer one is refused rather than misread."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """checkpoint.json: what of a snapshot is no array."""

    format: int
    written_seconds: float
    """Unix seconds."""
    versions: tuple[int, ...]
    slots: int
    work: Work
    spec: JobSpec


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """latest.json."""

    checkpoint: str
    job: str
    run: str
    versions: tuple[int, ...]


def name_of(snapshot: Snapshot) -> str:
    """The name of a snapshot's checkpoint: the shards' mean version, with the gradients beyond it after a point.

    Names of one run sort by age, and two are the same only if nothing came between: what is there is not overwritten.
    """
    shards = len(snapshot.versions)
    version, beyond = divmod(sum(snapshot.versions), shards)
    uneven = f".{beyond:0{len(str(shards - 1))}d}" if beyond else ""
    return f"{version:012d}{uneven}-{snapshot.spec.run}"


def write(folder: Folder, snapshot: Snapshot, now_seconds: float, keep: int) -> str:
    """Writes a checkpoint, points `latest` at it and removes those of the same run beyond the newest `keep`.

    Whoever reads meanwhile, or after a crash in between, finds a whole one. Returns its name.

    Raises:
        FileError: it could not be written; those before are untouched.
    """
    spec, name = snapshot.spec, name_of(snapshot)
    about = spec.about(snapshot.versions)
    parameters = weights.named(spec.parameters, snapshot.parameters)
    slots = {
        f"{index}/{array}": values
        for index, slot in enumerate(snapshot.slots)
        for array, values in weights.named(spec.parameters, slot).items()
    }
    folder.write(f"{name}/{PARAMETERS}", weights.pack(parameters, about))
    folder.write(f"{name}/{OPTIMIZER}", weights.pack(slots, about))
    description = About(
        format=FORMAT,
        written_seconds=now_seconds,
        versions=snapshot.versions,
        slots=len(snapshot.slots),
        work=snapshot.work,
        # Whoever can read a checkpoint need not be able to sign ids of the run that goes on.
        spec=msgspec.structs.replace(spec, secret=""),
    )
    folder.write(f"{name}/{ABOUT}", msgspec.json.format(msgspec.json.encode(description)))
    # Another writer of the same folder may have removed some of it as older than its own.
    if not _is_whole(folder, name):
        raise FileError(f"{folder}/{name} is not whole any more: another process removed some of it meanwhile")
    newest = Latest(checkpoint=name, job=spec.name, run=spec.run, versions=snapshot.versions)
    folder.write(LATEST, msgspec.json.format(msgspec.json.encode(newest)))
    _remove_old(folder, spec.run, name, keep)
    return name


def latest(folder: Folder) -> Latest | None:
    """Which checkpoint is the newest; None if there is none yet, or one that this version cannot read."""
    data = folder.read(LATEST)
    try:
        newest = None if data is None else msgspec.json.decode(data, type=Latest)
    except msgspec.MsgspecError:
        return None
    # A bucket may be written by others: no address outside it is followed.
    return None if newest is None or "/" in newest.checkpoint else newest


def read(where: Where) -> Snapshot:
    """Reads a checkpoint: one that `where` names itself, or the newest of the folder `where`.

    Raises:
        JobError: there is none, or it is damaged, or of another version of CrowdLearn.
        FileError: it could not be read.
    """
    folder, prefix = files.folder(where), ""
    data = folder.read(ABOUT)
    if data is None:
        newest = latest(folder)
        if newest is None:
            if folder.read(LATEST) is not None:
                raise JobError(f"{where}/{LATEST} is damaged; name the folder of one checkpoint instead: {where}/NAME")
            raise JobError(f"{where} expects a checkpoint ({ABOUT}) or a folder of some ({LATEST}), got neither")
        prefix = f"{_there(folder, newest) or newest.checkpoint}/"
        data = folder.read(prefix + ABOUT)
        if data is None:
            raise JobError(f"{where}/{LATEST} names {newest.checkpoint}, which is not there: name another one")
    try:
        about = msgspec.json.decode(data, type=About)
    except msgspec.MsgspecError as error:
        raise JobError(f"{where}: the checkpoint was written by another version of CrowdLearn: {error}") from error
    if about.format != FORMAT:
        raise JobError(f"{where}: the checkpoint expects format {FORMAT}, got {about.format}: update CrowdLearn")
    if len(about.versions) != len(about.spec.shards):
        shards = len(about.spec.shards)
        raise JobError(f"{where}: {ABOUT} is damaged: {shards} shards expect as many versions, got {about.versions}")
    return _snapshot(f"{str(where).rstrip('/')}/{prefix}", about)


def _snapshot(address: str, about: About) -> Snapshot:
    parameters = about.spec.parameters
    arrays = weights.read(address + OPTIMIZER)
    slots = [
        weights.flatten(
            {name.removeprefix(f"{index}/"): array for name, array in arrays.items() if name.startswith(f"{index}/")},
            parameters,
            f"{address}{OPTIMIZER}, slot {index},",
        )
        for index in range(about.slots)
    ]
    return Snapshot(
        spec=about.spec,
        versions=about.versions,
        parameters=weights.load(address + PARAMETERS, parameters),
        slots=tuple(np.ascontiguousarray(slot) for slot in slots),
        work=about.work,
    )


def _there(folder: Folder, newest: Latest) -> str | None:
    """The checkpoint that `latest` names, or else the newest whole one of its run.

    Another writer may have removed it after it was found whole, and before it was called the newest.
    """
    if _is_whole(folder, newest.checkpoint):
        return newest.checkpoint
    others = [name for name in folder.names() if name.endswith(f"-{newest.run}")]
    return max((name for name in others if _is_whole(folder, name)), default=None)


def _is_whole(folder: Folder, name: str) -> bool:
    return {PARAMETERS, OPTIMIZER, ABOUT} <= {*files.folder(f"{folder}/{name}").names()}


def _remove_old(folder: Folder, run: str, newest: str, keep: int) -> None:
    named = latest(folder)
    # What another writer has called the newest meanwhile stays, and so does what it writes now: that is newer still.
    stay = {newest} if named is None else {newest, named.checkpoint}
    others = [name for name in folder.names() if name.endswith(f"-{run}") and name < newest and name not in stay]
    whole = [name for name in others if folder.read(f"{name}/{ABOUT}") is not None]
    # What is not whole is left of a writer that died.
    for name in {*others} - {*whole[max(0, len(whole) - keep + 1) :]}:
        try:
            folder.remove(name)
        except FileError as error:
            log.warning("cannot remove an old checkpoint: %s", error)
