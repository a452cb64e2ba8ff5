"""``deephash serve``."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_errors import reports_errors
from .cli_options import Index
from .terminal import note

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command()(serve)


@reports_errors
def serve(
    index: Index,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Listen here; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Listen here; 0 for any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="DEEPHASH_TOKEN",
            show_default=False,
            help="What changes need; 16 characters or more.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name of this server; repeatable."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", metavar="DIR", help="Calls may index folders under DIR, too; repeatable."),
    ] = None,
    uploads: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep uploaded images here; without it none are taken.")
    ] = None,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1, help="Largest request.")] = 64,
) -> None:
    """Serve an index: an HTTP API and a page, until Ctrl-C.

    Prints the address, with the token behind #: calls that change something need it. Only this machine can reach the
    server unless --host says otherwise; then reading needs the token, too. The API: /v1/openapi.json.

    \b
      deephash serve photos.dhx
      deephash serve photos.dhx --port 8080 --uploads incoming/ --root photos/
      DEEPHASH_TOKEN=... deephash serve photos.dhx --host 0.0.0.0
    """
    try:
        from .server import ServerSettings, serve
    except ImportError as error:
        from .errors import DeepHashError

        raise DeepHashError(f"deephash serve needs {error.name}: pip install 'deephash[serve]'") from error

    settings = ServerSettings(
        index, host=host, port=port, token=token, allow_hosts=allow_host or (), roots=root or (), uploads=uploads,
        max_body_bytes=max_body << 20,
    )  # fmt: skip
    note(f"serving {index}; Ctrl-C stops")
    serve(settings, on_start=lambda url: print(f"{url}#token={settings.secret}", flush=True))
