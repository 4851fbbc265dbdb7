"""Every setting, in one typed object: environment over `fireside.toml` over defaults.

`FIRESIDE_PORT=8001` in the environment and `port = 8001` in `fireside.toml` say the same. The file is looked for in
the working directory and in `FIRESIDE_HOME`; where both set a key, the working directory's wins.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from fireside.errors import SettingsError

ENV_PREFIX = "FIRESIDE_"
FILE_NAME = "fireside.toml"
DEFAULT_HOME = "~/.local/share/fireside"

_SIZE = re.compile(r"(?i)\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*")


def _parse_size(value: object) -> object:
    """Bytes from "512 MiB", "2GB" (powers of 1000) or a plain number; anything else is left to pydantic."""
    if not isinstance(value, str) or (match := _SIZE.fullmatch(value)) is None:
        return value
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** " kmgt".index(unit.lower() or " "))


Bytes = Annotated[int, BeforeValidator(_parse_size)]


class Settings(BaseSettings):
    """The settings of one process. Built by `load_settings`; direct construction takes its arguments and defaults only.

    Keys in `api_keys`, and a password in `database_url`, never show in `repr` or logs.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, env_parse_none_str="none", extra="forbid", frozen=True
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    # Where
    host: str = Field("127.0.0.1", min_length=1, description="Address the server binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port the server binds to; 0 takes any free one.")
    home: Path = Field(
        Path(DEFAULT_HOME), description="Folder of models, runs, logs and saved prefixes.", validate_default=True
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # Who
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Bearer keys that open the API, beside people's own; in the environment separated by commas."
    )

    database_url: SecretStr | None = Field(
        None, description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; None: fireside.db in the home."
    )
    sign_up: Literal["invitation", "open"] = Field(
        "invitation", description="Who may make an account: who was invited, or everybody who reaches the server."
    )
    sharing: bool = Field(True, description="People may share conversations by link, with whoever has the link.")
    session_days: int = Field(30, ge=1, le=365, description="Days after which a browser has to sign in again.")

    audit_days: int = Field(365, ge=1, le=36_500, description="Days that the audit log is kept.")

    # What
    model: str = Field("smollm2-135m", min_length=1, description="The default model: a name, or a path.")
    map_unknown_models: bool = Field(
        False, description="Answer requests for unknown models with the default one; their suffix is ignored."
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "quantized"] = Field(
        "auto", description="What weights are computed in; quantized keeps a GGUF's own types."
    )
    max_context: int | None = Field(None, ge=16, description="Tokens of prompt and answer; None: the model's own.")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the engine; 0: one per fast core within the container's quota."
    )

    # How much
    kv_cache_dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="What keys and values are kept in; int8 takes about half the memory of bfloat16."
    )
    kv_cache_memory: Bytes | None = Field(None, gt=0, description="Bytes for keys and values; None: by free memory.")
    max_batch_tokens: int = Field(512, ge=16, description="Tokens in one engine step, prefill and decode together.")
    saved_prefix_tokens: int = Field(
        4096, ge=0, le=1 << 20, description="Tokens of system prompts whose keys and values outlive a restart; 0: none."
    )
    speculative_tokens: int = Field(15, ge=0, le=15, description="Most tokens guessed per request and step; 0: none.")
    speculative_recent: bool = Field(True, description="Guess from recent answers to others, too.")
    draft_model: str | None = Field(
        None, min_length=1, description="A smaller model with the same tokenizer that guesses: a name, or a path."
    )
    max_running: int = Field(64, ge=1, description="Requests that generate at the same time.")
    max_waiting: int = Field(256, ge=0, description="Requests that may queue before the answer is 429.")
    max_body_bytes: Bytes = Field(8 * 1024**2, ge=1024, description="Largest request body.")
    max_import_bytes: Bytes = Field(512 * 1024**2, ge=1024, description="Largest export that can be imported.")
    max_messages: int = Field(2048, ge=1, description="Most messages in one conversation.")
    grammar_timeout: float = Field(5.0, gt=0, le=600, description="Seconds a grammar may take to compile.")
    heartbeat_timeout: float = Field(
        120.0, gt=0, description="Seconds of silence, more than the longest step, after which a worker is restarted."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load_settings` lays the layers, so that an error can say where its value stood

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        return tuple(key.strip() for key in value.split(",")) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _keys_are_printable(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            if not re.fullmatch(r"[!-~]+( [!-~]+)*", key.get_secret_value()):
                raise ValueError(
                    "holds a key that is empty or has characters that an Authorization header cannot carry"
                )
        return value

    def source_of(self, name: str) -> str:
        """Where a setting comes from: "default", "option", "environment", or the path of a file."""
        return self._sources.get(name, "default")

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def prefixes_dir(self) -> Path:
        return self.home / "prefixes"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def database(self) -> str:
        """The URL of the database. It may hold a password."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.home / 'fireside.db'}"

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the server."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host.strip("[]")  # noqa: S104 - compared
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether `host` can be reached from this machine only. A name that is not an address counts as exposed."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def load_settings(directory: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `overrides` (a command's own options; None means not given) over the environment over the files.

    `directory` stands in for the working directory. Raises `SettingsError` naming where a bad key or value stands.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    variables = _from_environment()
    local_path = (directory or Path.cwd()) / FILE_NAME
    local = _from_file(local_path)

    home = given.get("home") or variables.get("home") or local.get("home") or DEFAULT_HOME
    home_path = Path(str(home)).expanduser() / FILE_NAME
    at_home = {} if home_path.absolute() == local_path.absolute() else _from_file(home_path)
    if "home" in at_home:
        raise SettingsError(f"{home_path}: home cannot be set in the file that is found through it; set FIRESIDE_HOME")

    try:
        settings = Settings(**(at_home | local | variables | given))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if key in given:
            where = f"option {key}"
        elif key in variables:
            where = f"environment variable {ENV_PREFIX}{key.upper()}"
        else:
            where = f"{local_path if key in local else home_path}: {key}"
        value = "" if key in ("api_keys", "database_url") else f", not {first['input']!r}"
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise SettingsError(f"{where} {reason}{value}") from None
    layers = ((at_home, str(home_path)), (local, str(local_path)), (variables, "environment"), (given, "option"))
    settings._sources.update({key: source for layer, source in layers for key in layer})
    return settings


def _from_environment() -> dict[str, Any]:
    known = {ENV_PREFIX + key.upper() for key in Settings.model_fields}
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            raise SettingsError(f"environment variable {name} is not a setting{_nearest(name.upper(), known)}")
    return EnvSettingsSource(Settings)()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    for key in values:
        if key not in Settings.model_fields:
            raise SettingsError(f"{path}: {key} is not a setting{_nearest(key, Settings.model_fields)}")
    return values


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; known: {', '.join(sorted(known))}"
