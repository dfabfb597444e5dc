"""URLs that no server can have are refused at once, in one line, by everything that takes a URL."""

import logging

import pytest

from latentscale.commands.app import app
from latentscale.data.datasets import open_dataset
from latentscale.errors import UserError
from latentscale.local_paths import expanded_arguments
from latentscale.storage.dataset_files import StorageOptions
from latentscale.storage.remote import Remote
from latentscale.storage.urls import check_url
from latentscale.wording import without_passwords

INVALID = {
    "http://images:70000/": "Port out of range",
    "https://images:80a/cats": "correct its host or port",
    "http://images:-5/cats": "correct its host or port",
    "http://[fe80::1/cats": "correct its host or port",
    "http://fe80::1]/cats": "correct its host or port",
    "https://[cats]/": "correct its host or port",
    "HTTP://[12::zz::]/": "correct its host or port",
    "http://": "write a host",
    "https:///cats": "write a host",
    "http://:8080/cats": "write a host",
    "http://me:word@/cats": "write a host",
    "http://cat dog/": "spaces and special characters",
    "http://cat|dog/": "spaces and special characters",
    "http://cats..org/": "between dots",
    "http://" + "c" * 64 + ".org/": "between dots",
    "http://" + "cats." * 60 + "org/": "253 characters",
    "http://cats.org/" + "c" * 5000: "shorten it",
    "http://cats.org/a\nb": "control characters",
    "s3://cats/\x1b[1m": "control characters",
    "http://cats.org/\udcff": "UTF-8",
    "s3://": "write a bucket",
    "gs:///cats": "write a bucket",
    "s3://key:word@cats/x": "credentials from the environment",
    "gs://cats and dogs/x": "correct the bucket",
    "file://": "three slashes",
    "file://server/share/cats": "three slashes",
    "://cats": "write s3://",
    "c a t://x": "write s3://",
    "zip://cats::http://[1/cats.zip": "correct its host or port",
    "simplecache::s3://": "write a bucket",
}
VALID = (
    "http://localhost:9000/cats", "https://[::1]:8443/cats/", "http://me:word@cats.org/", "http://cats.org./",
    "http://кошки.рф/", "http://cats.org/my cats", "s3://cats/my cats", "s3a://Cats_1.x/é", "gs://cats",
    "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/cats", "file:///data/cats", "memory://cats", "memory://",
    "simplecache::http://cats.org/x", "zip://::https://cats.org/cats.zip", "hf://datasets/a/b",
)  # fmt: skip


@pytest.fixture
def options(tmp_path):
    return StorageOptions(tmp_path / "cache", retry_seconds=60.0)


@pytest.mark.parametrize("url", INVALID)
def test_an_invalid_url_is_refused_with_its_fault(url, options):
    with pytest.raises(UserError) as refused:
        check_url(url)
    assert INVALID[url] in str(refused.value)
    assert str(refused.value).isprintable()
    assert "word" not in str(refused.value)
    with pytest.raises(UserError, match=r"^data\.path="):
        Remote(url, options)
    with pytest.raises(UserError, match=r"^data\.path="):
        open_dataset("shards", url, "train", options)


@pytest.mark.parametrize("url", VALID)
def test_a_valid_url_passes(url):
    check_url(url)


@pytest.mark.parametrize("url", ["nosuch://cats", "github://cats", "dir://cats", "reference://cats"])
def test_whatever_a_file_system_raises_at_its_start_is_one_line(url, options):
    """Some need arguments that a URL cannot give, and raise a TypeError or AttributeError."""
    with pytest.raises(UserError, match=rf"^data\.path={url} cannot be read .*: use s3://"):
        Remote(url, options)


@pytest.mark.parametrize("command", [["verify"], ["info"], ["split", "--out", "parts"]])
@pytest.mark.parametrize("url", ["http://[cats/", "https://cats:99999/", "s3://", "file://cats/x"])
def test_commands_refuse_it(command, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fractions = ["--fractions", "train=0.5,test=0.5"] if command[0] == "split" else []
    words = expanded_arguments(["shards", command[0], url, *command[1:], *fractions])
    with pytest.raises(UserError, match="is not a URL that can be read"):
        app(words, standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:word@host/x", "http://me:…@host/x"),
        ("at http://me:wo@rd@host/x and s3://a:word@b:", "at http://me:…@host/x and s3://a:…@b:"),
        ("http://host:80/@cats", "http://host:80/@cats"),
        ("http://me@host/x", "http://me@host/x"),
        ("mail me:word@host", "mail me:word@host"),
        ("http://:word@host", "http://:…@host"),
        ("http:/me:word@host is a URL", "http:/me:…@host is a URL"),
    ],
)
def test_passwords_are_left_out(text, shown):
    assert without_passwords(text) == shown
    assert str(UserError(text)) == shown


def test_no_message_about_a_url_holds_its_password(options, tmp_path, caplog):
    """Neither the error nor the warning that a request is retried."""
    remote = Remote("http://me:word@127.0.0.1:1/cats", StorageOptions(tmp_path, retry_seconds=0.3))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as failed:
        remote.read("dataset.json")
    assert "http://me:…@127.0.0.1:1/cats" in str(failed.value)
    assert "http://me:…@127.0.0.1:1/cats" in caplog.text
    assert "word" not in str(failed.value) + caplog.text
