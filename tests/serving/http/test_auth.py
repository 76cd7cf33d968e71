"""API keys: what is kept of them, and whom they let in."""

import hashlib
import json
import stat

import pytest

from pitwise.errors import ParamsError, StoreError
from serving.http.auth import Keys, add_key, list_keys, revoke_key


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
    assert list_keys(path) == [{"name": "desk", "created": kept["created"]}]


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
    assert {key: checked.check(key) for key in keys} == keys
    for wrong in ("", "pw_", next(iter(keys))[:-1], next(iter(keys)) + "x", "ÿ", "\udcff"):
        assert checked.check(wrong) is None


def test_every_key_is_compared_whichever_fits(path, monkeypatch):
    first = add_key(path, "a")
    for name in ("b", "c"):
        add_key(path, name)
    keys, compared = Keys(path), []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    assert keys.check(first) == "a"
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
    assert (keys.check(first), keys.check(second)) == ("a", "b")
    revoke_key(path, "a")
    assert (keys.check(first), keys.check(second)) == (None, "b")


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
