"""`fireside admin`: people and the database, from the terminal of the machine that has it."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from fireside.server.accounts.accounts import Accounts
    from fireside.server.accounts.tables import User

app = typer.Typer(help="People, links, feedback and backups of the app.", no_args_is_help=True)

_Result = TypeVar("_Result")

# Links are for whoever opens them at another machine, too, which the server's own address may not be right for.
Url = Annotated[
    str | None, typer.Option("--url", help="The address that people open the app at; by default the server's own.")
]


@app.command()
def users() -> None:
    """List the people who have an account."""

    async def run() -> list[User]:
        from sqlalchemy import select

        from fireside.server.accounts.tables import User

        async with _accounts() as accounts, accounts.database.session() as session:
            return list(await session.scalars(select(User).order_by(User.id)))

    found = _run(run())
    if not found:
        typer.echo("Nobody has an account yet; fireside admin setup-link makes the first one's link.")
        return
    rows = [("EMAIL", "NAME", "ROLE", "SINCE")]
    for user in found:
        role = f"{user.role} (disabled)" if user.disabled_at else str(user.role)
        rows.append((user.email, user.name, role, f"{user.created_at:%Y-%m-%d}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def invite(
    role: Annotated[Literal["admin", "member", "guest"], typer.Option(help="What they will be.")] = "member",
    days: Annotated[int, typer.Option(min=1, max=90, help="How long the link is good for.")] = 7,
    url: Url = None,
) -> None:
    """Print a link by which one person makes an account."""

    async def run() -> str:
        from fireside.server.accounts.administration import new_link
        from fireside.server.accounts.tables import LinkKind, Role

        async with _accounts() as accounts, accounts.database.session() as session:
            _, token = await new_link(
                session, LinkKind.INVITATION, timedelta(days=days), by=None, address=None, role=Role(role)
            )
            return token

    typer.echo(f"{_address(url)}/join#{_run(run())}")


@app.command("reset-password")
def reset_password(email: str, url: Url = None) -> None:
    """Print a link by which EMAIL sets a new password, good for a day."""

    async def run() -> str:
        from sqlalchemy import select

        from fireside.errors import FiresideError
        from fireside.server.accounts.administration import RESET_HOURS, new_link
        from fireside.server.accounts.schemas import normal_email
        from fireside.server.accounts.tables import LinkKind, User

        async with _accounts() as accounts, accounts.database.session() as session:
            try:
                user = await session.scalar(select(User).where(User.email == normal_email(email)))
            except ValueError:
                user = None
            if user is None:
                raise FiresideError(f"nobody has an account with {email!r}; fireside admin users lists those who have")
            if user.disabled_at is not None:
                raise FiresideError(f"the account of {email} is disabled; an administrator enables it in the app")
            lasts = timedelta(hours=RESET_HOURS)
            _, token = await new_link(session, LinkKind.RESET, lasts, by=None, address=None, user_id=user.id)
            return token

    typer.echo(f"{_address(url)}/reset#{_run(run())}")


@app.command("setup-link")
def setup_link(url: Url = None) -> None:
    """Print the link that makes the administrator, good for a day; earlier ones are good no longer."""

    async def run() -> str:
        from fireside.errors import FiresideError

        async with _accounts() as accounts:
            token = await accounts.new_setup_token()
        if token is None:
            raise FiresideError(
                "there is an administrator already: fireside admin users says who, and fireside admin reset-password "
                "lets them in again"
            )
        return token

    typer.echo(f"{_address(url)}/setup#{_run(run())}")


@app.command()
def backup() -> None:
    """Copy the whole database into `backups` beside it, while the server runs or not."""

    async def run() -> str:
        async with _accounts() as accounts:
            return str(await accounts.database.back_up())

    typer.echo(_run(run()))


@app.command("export-feedback")
def export_feedback(
    form: Annotated[
        Literal["sft", "dpo", "kto"], typer.Option("--format", help="Examples, pairs, or single answers with a label.")
    ] = "sft",
    output: Annotated[Path | None, typer.Option(help="A new file to write to; by default the terminal.")] = None,
    weak: Annotated[
        bool, typer.Option(help="Answers that were given again count, even if nobody said which one is better.")
    ] = False,
) -> None:
    """Write the feedback whose givers consent as JSON lines, for fireside finetune."""
    from fireside.errors import FiresideError

    async def run(out: BinaryIO) -> None:
        from fireside.server.accounts import audit
        from fireside.server.feedback.export import export

        async with _accounts() as accounts:
            async with accounts.database.session() as session:  # first: what is read in part is read
                audit.note(session, "feedback_exported", by=None, address=None, format=form)
            async for line in export(accounts.database, form, weak=weak):
                out.write(line)
        out.flush()

    try:
        if output is None:
            _run(run(sys.stdout.buffer))
        else:
            with _new_file(output) as out:
                _run(run(out))
    except BrokenPipeError:
        raise  # who reads has enough: typer ends quietly
    except OSError as error:
        raise FiresideError(f"{output or 'the output'} cannot be written: {error.strerror or error}") from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """For its owner's eyes, since what people wrote is in it; there once it is whole. Raises OSError."""
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    partial = path.with_name(f"{path.name}.partial")
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            yield out
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@asynccontextmanager
async def _accounts() -> AsyncIterator[Accounts]:
    from fireside.server.accounts.accounts import Accounts
    from fireside.server.db.database import Database
    from fireside.settings import load_settings

    settings = load_settings()
    database = Database(settings.database)
    try:
        await database.open()
        yield Accounts(settings, database)
    finally:
        await database.close()


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    return asyncio.run(work)


def _address(url: str | None) -> str:
    from fireside.settings import load_settings

    return url.rstrip("/") if url else load_settings().address
