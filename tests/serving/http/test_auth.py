"""API keys: what is kept of them, and whom they let in."""

import hashlib
import json
import stat
from datetime import UTC, date, datetime, timedelta

import pytest

from pitwise.errors import ParamsError, StoreError
from serving.http.auth import SCOPES, Key, Keys, add_key, list_keys, revoke_key

pytestmark = pytest.mark.unit


def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "serving" / "keys.json"


def test_the_file_has_the_hash_and_not_the_key_and_nobody_else_can_read_it(path):
    key = add_key(path, "desk")
    assert key.startswith("pw_")
    assert len(key) >= 46  # 256 bits in base 64, and the prefix
    assert key not in path.read_text()
    kept = json.loads(path.read_text())["desk"]
    assert kept["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list_keys(path) == [
        {
            "name": "desk",
            "created": kept["created"],
            "scopes": ["predict"],
            "expires": None,
            "per_minute": None,
            "per_day": None,
        }
    ]


def test_a_key_has_its_scopes_end_and_quotas(path):
    end = today() + timedelta(days=3)
    secret = add_key(path, "desk", ["bars", "predict"], end, per_minute=600, per_day=100_000)
    key = Keys(path).check(secret)
    assert key.scopes == ("predict", "bars")
    assert (key.expires, key.per_minute, key.per_day) == (end.isoformat(), 600, 100_000)
    (listed,) = list_keys(path)
    assert listed["scopes"] == ["predict", "bars"]
    assert (listed["expires"], listed["per_minute"], listed["per_day"]) == (
        end.isoformat(),
        600,
        100_000,
    )


def test_a_key_is_valid_on_its_last_day_and_not_after_it():
    def expired(days: int) -> bool:
        return Key("a", "", "", expires=(today() + timedelta(days=days)).isoformat()).expired()

    assert [expired(days) for days in (-1, 0, 1)] == [True, False, False]
    assert not Key("a", "", "").expired()


def test_a_key_of_a_file_of_before_there_were_scopes_keeps_all_of_them(path):
    path.parent.mkdir()
    sha256 = hashlib.sha256(b"pw_old").hexdigest()
    path.write_text(json.dumps({"old": {"sha256": sha256, "created": "2013-11-01T00:00:00+00:00"}}))
    assert Keys(path).check("pw_old").scopes == SCOPES
    add_key(path, "new")
    assert {key["name"]: key["scopes"] for key in list_keys(path)} == {
        "old": list(SCOPES),
        "new": ["predict"],
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"scopes": ["everything"]},
        {"scopes": "bars"},
        {"expires": "soon"},
        {"per_day": 0},
        {"per_minute": True},
    ],
)
def test_a_file_with_a_scope_or_limit_that_is_none_is_refused(path, entry):
    path.parent.mkdir()
    path.write_text(json.dumps({"a": {"sha256": "00", "created": ""} | entry}))
    with pytest.raises(StoreError, match="is no file of API keys"):
        Keys(path)


def test_a_key_that_would_be_good_for_nothing_is_not_made(path):
    with pytest.raises(ParamsError, match="a key's scopes are of predict, bars, model"):
        add_key(path, "desk", ["everything"])
    with pytest.raises(ParamsError, match="none: a key's scopes"):
        add_key(path, "desk", [])
    with pytest.raises(ParamsError, match="is over"):
        add_key(path, "desk", expires=today() - timedelta(days=1))
    assert list_keys(path) == []


def test_a_file_that_a_killed_run_left_open_to_all_does_not_make_the_next_one_so(path):
    path.parent.mkdir()
    left = path.with_name(".keys.json.tmp")
    left.touch()
    left.chmod(0o666)
    add_key(path, "desk")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_gives_its_name_and_anything_else_gives_none(path):
    keys = {add_key(path, name): name for name in ("a", "b", "c")}
    checked = Keys(path)
    assert {key: checked.check(key).name for key in keys} == keys
    for wrong in ("", "pw_", next(iter(keys))[:-1], next(iter(keys)) + "x", "ÿ", "\udcff"):
        assert checked.check(wrong) is None


def test_every_key_is_compared_whichever_fits(path, monkeypatch):
    first = add_key(path, "a")
    for name in ("b", "c"):
        add_key(path, name)
    keys, compared = Keys(path), []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    assert keys.check(first).name == "a"
    assert len(compared) == 3


def test_a_name_is_taken_once_until_it_is_revoked(path):
    add_key(path, "desk")
    with pytest.raises(ParamsError, match="has a key named 'desk'"):
        add_key(path, "desk")
    revoke_key(path, "desk")
    add_key(path, "desk")
    with pytest.raises(ParamsError, match=r"no key named 'dusk'. It has: desk"):
        revoke_key(path, "dusk")


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "ä", "x" * 65])
def test_a_name_that_could_confuse_a_log_is_refused(path, name):
    with pytest.raises(ParamsError, match="cannot name a key"):
        add_key(path, name)


def test_a_running_service_follows_the_file(path):
    keys = Keys(path)
    assert not keys.required
    first, second = add_key(path, "a"), add_key(path, "b")
    assert keys.required
    held = keys.check(first)
    assert (held.name, keys.check(second).name) == ("a", "b")
    assert keys.holds(held)
    revoke_key(path, "a")
    assert (keys.check(first), keys.check(second).name) == (None, "b")
    assert not keys.holds(held)
    add_key(path, "a")
    assert not keys.holds(held)  # another one of the same name


@pytest.mark.parametrize("end", ["revoked", "deleted", "broken", "not ours"])
def test_a_service_that_was_closed_does_not_open_again(path, end):
    key = add_key(path, "a")
    keys = Keys(path)
    if end == "revoked":
        revoke_key(path, "a")
    elif end == "deleted":
        path.unlink()
    else:
        path.write_text("{" if end == "broken" else '["a"]')
    assert keys.required
    assert keys.check(key) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"sha256": "00"}}', "\0"])
def test_a_service_does_not_start_on_a_file_that_is_none(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StoreError, match=r"keys\.json: is no file of API keys"):
        Keys(path)


def test_a_file_that_is_not_to_be_read_is_said_so(path):
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"keys\.json"):
        Keys(path)
