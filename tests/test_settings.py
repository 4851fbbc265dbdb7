"""Settings: which source wins, and that every mistake is named where it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fireside.errors import SettingsError
from fireside.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory, and no FIRESIDE_ variable but the home."""
    for name in [name for name in os.environ if name.upper().startswith("FIRESIDE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("FIRESIDE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_option_over_environment_over_directory_over_home_over_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().port == 8000
    (home / "fireside.toml").write_text("port = 1001\nmax_running = 7\n")
    assert load_settings().port == 1001
    Path("fireside.toml").write_text("port = 1002\n")
    assert load_settings().port == 1002
    monkeypatch.setenv("FIRESIDE_PORT", "1003")
    assert load_settings().port == 1003
    settings = load_settings(port=1004, host=None)
    assert (settings.port, settings.max_running, settings.host) == (1004, 7, "127.0.0.1")


def test_home_is_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRESIDE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings().home == tmp_path / ".local/share/fireside"
    monkeypatch.setenv("FIRESIDE_HOME", "relative")
    assert load_settings().models_dir == tmp_path / "work/relative/models"


def test_file_in_the_working_directory_may_move_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRESIDE_HOME")
    other = tmp_path / "other"
    other.mkdir()
    (other / "fireside.toml").write_text("port = 1005\n")
    Path("fireside.toml").write_text(f'home = "{other.as_posix()}"\n')
    assert (load_settings().home, load_settings().port) == (other, 1005)


def test_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_PROT", "1")
    with pytest.raises(SettingsError, match=r"FIRESIDE_PROT is not a setting; did you mean FIRESIDE_PORT\?"):
        load_settings()


def test_unknown_key_names_the_file_and_the_nearest(home: Path) -> None:
    (home / "fireside.toml").write_text("max_runing = 3\n")
    with pytest.raises(SettingsError, match=r"home/fireside\.toml: max_runing is not .*did you mean max_running\?"):
        load_settings()


def test_unknown_key_unlike_any_lists_all(home: Path) -> None:
    (home / "fireside.toml").write_text("zzzzqqqq = 3\n")
    with pytest.raises(SettingsError, match=r"known: api_keys, audit_days, database_url, device,.*threads"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("port", "http", "FIRESIDE_PORT should be a valid integer.*not 'http'"),
        ("port", "70000", "FIRESIDE_PORT should be less than or equal to 65535, not '70000'"),
        ("device", "tpu", "FIRESIDE_DEVICE should be 'auto', 'cpu' or 'cuda', not 'tpu'"),
        ("max_context", "-1", "FIRESIDE_MAX_CONTEXT should be greater"),
        ("kv_cache_memory", "lots", "FIRESIDE_KV_CACHE_MEMORY should be a valid integer.*not 'lots'"),
        ("heartbeat_timeout", "nan", "FIRESIDE_HEARTBEAT_TIMEOUT should be"),
    ],
)
def test_bad_value_names_its_place(key: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FIRESIDE_{key.upper()}", text)
    with pytest.raises(SettingsError, match=message):
        load_settings()
    monkeypatch.delenv(f"FIRESIDE_{key.upper()}")
    Path("fireside.toml").write_text(f'{key} = "{text}"\n')
    with pytest.raises(SettingsError, match=rf"work/fireside\.toml: {key} should be"):
        load_settings()


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"[server]\nport = 1\n"])
def test_broken_file_is_named(content: bytes) -> None:
    Path("fireside.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"fireside\.toml"):
        load_settings()


def test_home_cannot_be_set_in_the_file_found_through_it(home: Path) -> None:
    (home / "fireside.toml").write_text('home = "/elsewhere"\n')
    with pytest.raises(SettingsError, match="set FIRESIDE_HOME"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512 MiB", 512 * 1024**2), ("2GB", 2 * 10**9), ("1.5k", 1500), ("3gib", 3 * 1024**3)],
)
def test_sizes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_KV_CACHE_MEMORY", text)
    assert load_settings().kv_cache_memory == size


def test_empty_variable_is_unset_and_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("fireside.toml").write_text("port = 1002\nmax_context = 64\n")
    monkeypatch.setenv("FIRESIDE_PORT", "")
    monkeypatch.setenv("FIRESIDE_MAX_CONTEXT", "none")
    settings = load_settings()
    assert (settings.port, settings.max_context) == (1002, None)


def test_keys_from_both_places_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("fireside.toml").write_text('api_keys = ["sekret-one", "My API Key"]\n')
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["sekret-one", "My API Key"]
    assert "sekret" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("FIRESIDE_API_KEYS", "a1, b2")
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["a1", "b2"]


@pytest.mark.parametrize("keys", ["sekret-one,", "sekret\tx", "sekret-é", "sekret,,b"])
def test_unusable_key_is_refused_without_showing_it(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_API_KEYS", keys)
    with pytest.raises(SettingsError, match="FIRESIDE_API_KEYS holds a key") as caught:
        load_settings()
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_what_is_this_machine_alone(host: str) -> None:
    assert Settings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "localhost.example.com"])
def test_what_others_can_reach(host: str) -> None:
    assert not Settings(host=host).is_loopback


def test_database_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(database_url="postgresql://me:sekret@db/fireside")
    assert "sekret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.database == "postgresql://me:sekret@db/fireside"
    assert Settings(home="/data").database == "sqlite:////data/fireside.db"


def test_direct_construction_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_PORT", "1003")
    assert Settings().port == 8000
