"""Puts together what a replica needs to start. Pure."""

from __future__ import annotations

from crowdlearn.protocol import FEATURES, Welcome
from crowdlearn.settings import GatewaySettings
from services.gateway.items import limits
from services.gateway.run import Run


def welcome(run: Run, signed: str, applied: list[int], settings: GatewaySettings) -> Welcome:
    """The answer to a hello: the replica's signed id; `applied` are its committed sequence numbers, one a shard."""
    spec = run.spec
    return Welcome(
        job=spec.name,
        run=spec.run,
        replica=signed,
        state="running" if run.running else "finished",
        program=f"/jobs/{spec.name}/{spec.run}/program",
        model=spec.model,
        predict=f"/jobs/{spec.name}/{spec.run}/predict" if spec.predicts else None,
        parameters=spec.parameters,
        shards=spec.shards,
        batch=spec.batch,
        training=spec.training,
        applied=applied,
        credit=settings.credit,
        max_frame_bytes=settings.max_frame_bytes,
        contents=run.contents.own_name if run.contents is not None else None,
        chunk_url=spec.chunk_url,
        stream=limits(spec.stream, settings.max_frame_bytes) if spec.stream is not None else None,
        features=list(FEATURES),
    )
