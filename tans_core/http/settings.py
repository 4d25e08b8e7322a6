"""The options of `tans api`, its token, and where it may listen."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tans_core.errors import ParamsError
from tans_core.retrieval.constraints import Options
from tans_core.runtime import cores

TOKEN_VARIABLE = "TANS_API_TOKEN"  # noqa: S105  the name of a variable
LEAST_TOKEN = 16


class ApiOptions(Options):
    """Options of the service."""

    host: Annotated[
        str, Field(description="The address to listen on; any but loopback needs a token.", min_length=1)
    ] = "127.0.0.1"
    port: Annotated[int, Field(description="The port; 0 takes a free one.", ge=0, le=65535)] = 8000
    token_file: Annotated[
        Path | None,
        Field(
            description=f"A file with the token that requests must send; else the variable {TOKEN_VARIABLE} has it.",
            json_schema_extra={"metavar": "FILE"},
        ),
    ] = None
    max_mb: Annotated[int, Field(description="The largest upload, in MB (10^6 bytes).", ge=1)] = 512
    max_images: Annotated[
        int, Field(description="The most images of an upload that are opened, evenly over classes.", ge=1)
    ] = 20_000
    at_once: Annotated[
        int | None, Field(description="How many requests read images at a time; by default one per core.", ge=1)
    ] = None
    waiting: Annotated[
        int, Field(description="How many more may upload or wait; others are told to come back.", ge=0)
    ] = 16
    jobs: Annotated[int, Field(description="How many networks are fine-tuned at a time; others wait.", ge=1)] = 1
    waiting_jobs: Annotated[int, Field(description="How many more fine-tunings may wait, with their images.", ge=0)] = 8
    per_minute: Annotated[int, Field(description="Requests a minute that one client may send.", ge=1)] = 600
    patience_s: Annotated[
        float,
        Field(
            description="Seconds that a client may take for the headers; after as many, a body must come at 16 KiB "
            "per second.",
            gt=0,
            json_schema_extra={"metavar": "S"},
        ),
    ] = 10.0

    @property
    def max_bytes(self) -> int:
        return self.max_mb * 10**6

    @property
    def slots(self) -> int:
        """How many requests read images at a time."""
        return self.at_once or cores()

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can connect. Of names, only `localhost` is known to be so."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def token(self) -> str | None:
        """Return the token that requests must send; None for none.

        Raises:
            ParamsError: it cannot be read or is easy to guess, or there is none and the address is not loopback.
        """
        source = TOKEN_VARIABLE if self.token_file is None else str(self.token_file)
        try:
            given = os.environ.get(source) if self.token_file is None else self.token_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not ASCII"
            into = f" > {source}" if isinstance(error, FileNotFoundError) else " makes a token"
            then = f"Want a file with a token alone: openssl rand -hex 32{into}"
            raise ParamsError(f"--token-file {source}: {reason}. {then}") from None
        token = None if given is None else given.strip()
        if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
            raise ParamsError(
                f"{source}: the token has {len(token)} characters; want at least {LEAST_TOKEN} of printable ASCII. "
                "Make one: openssl rand -hex 32"
            )
        if token is None and not self.is_loopback:
            raise ParamsError(
                f"--host {self.host}: other machines could connect, and no token is set. Set {TOKEN_VARIABLE}, or pass "
                "--token-file FILE (openssl rand -hex 32 > FILE); or use --host 127.0.0.1."
            )
        return token
