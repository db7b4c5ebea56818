"""Tells what a person can do about a Redis that does not let us in, or not do what we ask. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterator

from redis import exceptions

ELSEWHERE = "check that it runs, that --redis or CROWDLEARN_REDIS names it, and that it has memory left"


ELSEWHERE_PORT = "what listens there does not speak Redis's language; Redis's usual port is 6379"

NO_DATABASE = ("DB index is out of range", "SELECT is not allowed in cluster mode", "invalid DB index")
"""How Redis says that it has no database of that number."""

DATABASES = "end the address with /0, or with the number of a database that this Redis has (16 unless configured)"

PROTECTED = "Redis is running in protected mode"
"""What a Redis without a password says to who comes from another machine."""

REFUSALS = (exceptions.AuthenticationError, exceptions.NoPermissionError)

LATE = (TimeoutError, exceptions.TimeoutError)
"""Whose clock was first, ours of a command or redis-py's of a connection."""

WITHIN_A_SCRIPT = ("The user executing the script can't", "ACL failure in script")
"""How Redis 7.0, and how later ones, say that a script may not do something for this user."""


def is_refusal(error: BaseException) -> bool:
    """Whether Redis answers, and says no to whom we are: this lasts until an operator acts."""
    return any(isinstance(one, REFUSALS) for one in _chain(error)) or _said(
        error, "NOAUTH", PROTECTED, *WITHIN_A_SCRIPT
    )


def is_elsewhere(error: BaseException) -> bool:
    """Whether the address leads to something that is no Redis, or to a database that it does not have."""
    return _is_no_redis(error) or _said(error, *NO_DATABASE)


def _is_no_redis(error: BaseException) -> bool:
    return any(isinstance(one, exceptions.InvalidResponse) for one in _chain(error))


def told(error: BaseException) -> str:
    """What the error says, on one line."""
    said = " ".join(str(error).split())
    if PROTECTED in said:
        return PROTECTED  # a page of advice follows
    return said or type(error).__name__


def advice(error: BaseException, address: str) -> str:
    """What to check at `address`, after the error of redis-py or of the socket that says what happened."""
    if any(isinstance(one, exceptions.NoPermissionError) for one in _chain(error)) or _said(error, *WITHIN_A_SCRIPT):
        return (
            "give this user the rules that deploy/redis/users.acl has for the service, and load them (ACL LOAD); "
            "ACL LOG tells what was refused"
        )
    if _said(error, PROTECTED):
        return "give it a password and name it in the address, redis://:PASSWORD@HOST:6379 (docs/deploy.md)"
    if is_refusal(error):
        return "check the user and the password in the address, redis://USER:PASSWORD@HOST:6379 (docs/deploy.md)"
    if _is_no_redis(error):
        return ELSEWHERE_PORT
    if _said(error, *NO_DATABASE):
        return DATABASES
    if _said(error, "CERTIFICATE_VERIFY_FAILED"):
        return "name the authority that signed its certificate: rediss://HOST:6379?ssl_ca_certs=FILE"
    if _said(error, "CERTIFICATE_REQUIRED", "certificate required"):
        return "it asks for a client certificate: add ?ssl_certfile=FILE&ssl_keyfile=FILE to its address"
    if _said(error, "Connection closed by server", "reset by peer") and not address.startswith("rediss"):
        return f"{ELSEWHERE}; if it speaks only TLS, name it rediss://"
    if any(isinstance(one, LATE) for one in _chain(error)) and address.startswith("rediss"):
        # A Redis without TLS takes the hello for the beginning of a long command, and waits for its end.
        return f"{ELSEWHERE}; if it does not speak TLS on this port, name it redis://"
    return ELSEWHERE


def _said(error: BaseException, *words: str) -> bool:
    return any(word in str(one) for one in _chain(error) for word in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what caused it: a client of a cluster tells only that it cannot connect."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
