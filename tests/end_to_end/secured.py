"""A Redis, or a cluster, as an operator should have it: TLS only, with the users of deploy/redis/users.acl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import RedisCluster, RedisServer

ROOT = Path(__file__).parent.parent.parent
ADMIN = "admin-of-the-test"


@dataclass(frozen=True)
class Certificates:
    """A server's certificate for 127.0.0.1, its key, and the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Makes a self-signed authority and lets it sign a certificate."""
    made = Certificates(folder / "ca.crt", folder / "redis.crt", folder / "redis.key")
    subject, valid = ("-subj", "/CN=CrowdLearn test"), ("-days", "2")
    authority = ("-keyout", folder / "ca.key", "-out", made.authority, "-addext", "basicConstraints=critical,CA:TRUE")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *curve, *subject, *valid, *authority)
    name = ("-addext", "subjectAltName=IP:127.0.0.1")
    signed = ("-CA", made.authority, "-CAkey", folder / "ca.key", "-keyout", made.key, "-out", made.certificate)
    _openssl("req", "-x509", *curve, "-subj", "/CN=redis", *valid, *name, *signed)
    return made


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def passwords(folder: Path) -> dict[str, str]:
    """Runs deploy/redis/make-users, adds an administrator for the test, and returns every user's password."""
    subprocess.run([ROOT / "deploy" / "redis" / "make-users", folder], check=True)
    with (folder / "users.acl").open("a") as file:
        file.write(f"user {ADMIN} on >{ADMIN} ~* &* +@all\n")
    return {file.stem: file.read_text() for file in folder.glob("*.password")}


class SecuredRedis:
    """`shape` is `node` or `cluster`."""

    def __init__(self, folder: Path, shape: str) -> None:
        self.passwords = passwords(folder)
        self.certificates = certificates(folder)
        tls = ("--tls-cert-file", self.certificates.certificate, "--tls-key-file", self.certificates.key)
        tls += ("--tls-ca-cert-file", self.certificates.authority, "--tls-auth-clients", "no")
        options = [*map(str, tls), "--aclfile", str(folder / "users.acl")]
        login = ["--tls", "--cacert", str(self.certificates.authority), "--user", ADMIN, "--pass", ADMIN]
        login.append("--no-auth-warning")
        self.cluster: RedisCluster | None = None
        if shape == "cluster":
            self.cluster = RedisCluster(folder, options=[*options, "--tls-cluster", "yes"], login=login)
            self.nodes = self.cluster.nodes
        else:
            self.nodes = [RedisServer(folder, *options, login=login)]

    def start(self) -> None:
        """Starts it and returns when it answers."""
        if self.cluster is not None:
            self.cluster.start()
        else:
            self.nodes[0].start()

    def stop(self) -> None:
        """SIGKILL to every node."""
        for node in self.nodes:
            node.kill()

    def url(self, user: str, password: str | None = None) -> str:
        """Its address for a user."""
        scheme = "rediss+cluster" if self.cluster is not None else "rediss"
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        secret = self.passwords[user] if password is None else password
        return f"{scheme}://{user}:{secret}@{hosts}?ssl_ca_certs={self.certificates.authority}"

    def refused(self) -> list[str]:
        """What any node refused to any user for want of a permission, as ACL LOG tells."""
        found = []
        for node in self.nodes:
            lines = node.cli("acl", "log").splitlines()
            fields = dict(zip(lines[::2], lines[1::2], strict=False))
            if lines:
                found.append(f"{fields.get('username')}: {lines}")
        return found

    def would(self, user: str, *command: str) -> bool:
        """Whether the user may send the command."""
        return self.nodes[0].cli("acl", "dryrun", user, *command) == "OK"
