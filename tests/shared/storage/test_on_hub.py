"""Publishing to the hub: its own client against a small one on loopback."""

import os

import hub as hubs
import pytest

UPLOAD, DOWNLOAD = (f"kfp_bonsai.shared.storage.store:{name}_folder" for name in ("upload", "download"))


@pytest.fixture(scope="module")
def running():
    """One hub for all tests."""
    with hubs.server() as found:
        yield found


@pytest.fixture(scope="module")
def client(running, tmp_path_factory):
    """A process whose client knows that hub."""
    made = hubs.Client(running.url, tmp_path_factory.mktemp("home"), HF_HUB_DISABLE_XET="1")
    yield made
    made.close()


@pytest.fixture
def hub(running):
    """The hub, empty."""
    running.repositories.clear()
    running.faults.clear()
    running.seen.clear()
    return running


@pytest.fixture
def folder(tmp_path):
    """A package: its record, its card, and a file that is large there."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "bonsai.json").write_text("{}")
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")
    (made / "model.safetensors").write_bytes(os.urandom(5000))
    return made


def publish(client, folder, where: str, token: str = hubs.TOKEN) -> str:
    """Return why it was refused; "" if it was published."""
    return client.ask(UPLOAD, str(folder), where, token=token).get("error", "")


def commits(hub) -> list[str]:
    return [path for method, path in hub.seen if method == "POST" and "/commit/" in path]


def test_a_package_is_pushed_private_and_comes_back_whole(hub, client, folder, tmp_path):
    """A model that was not for everybody would be for everybody, or not be the one that was packed."""
    assert publish(client, folder, "hf://me/reviews@v2") == ""
    made = hub.repositories[("models", "me/reviews")]
    assert made.private and made.tags == {"v2": made.commit}
    assert set(made.files) == {".gitattributes", "SHA256SUMS", *os.listdir(folder)} and len(commits(hub)) == 1
    fetched = client.ask(DOWNLOAD, "hf://me/reviews@v2", str(tmp_path / "fetched"), token=hubs.TOKEN)
    assert fetched["result"] == str(tmp_path / "fetched")
    for name in os.listdir(folder):
        assert (tmp_path / "fetched" / name).read_bytes() == (folder / name).read_bytes()


def test_the_same_again_changes_nothing_and_another_is_refused(hub, client, folder):
    """A retried task would fail, or a version change under its users."""
    assert publish(client, folder, "hf://me/reviews@v2") == publish(client, folder, "hf://me/reviews@v2") == ""
    assert len(commits(hub)) == 1
    (folder / "bonsai.json").write_text("[]")
    assert "holds something else, and what is published never changes" in publish(client, folder, "hf://me/reviews@v2")


def test_a_new_version_takes_the_place_of_the_one_before(hub, client, folder, tmp_path):
    """Files of two versions would be loaded as one model, or the earlier one be lost."""
    publish(client, folder, "hf://me/reviews@v2")
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").rename(folder / "model-2.safetensors")
    assert publish(client, folder, "hf://me/reviews@v3") == ""
    made = hub.repositories[("models", "me/reviews")]
    assert "model.safetensors" not in made.files and set(made.tags) == {"v2", "v3"}
    client.ask(DOWNLOAD, "hf://me/reviews@v2", str(tmp_path / "old"), token=hubs.TOKEN)
    assert (tmp_path / "old/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("files", "owner", "token", "said"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "me", hubs.TOKEN, "is taken: it holds config.json"),
        (None, "others", hubs.TOKEN, "the token may not write for 'others'"),
        ({".gitattributes": b""}, "others", hubs.TOKEN, "the token may not write for 'others'"),
        (None, "me", "hf_another_token", "refuses the token"),
        (None, "me", "", "no token to write with: set HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_told_in_words(hub, client, folder, files, owner, token, said):
    """A name that is taken would be overwritten, or nobody would know which right is missing."""
    if files is not None:
        hub.model(f"{owner}/reviews", dict(files))
    error = publish(client, folder, f"hf://{owner}/reviews@v2", token)
    assert said in error and "\n" not in error and (not token or token not in error)
    assert files is None or hub.repositories[("models", f"{owner}/reviews")].files == files


def test_a_private_name_of_somebody_else(hub, client, folder):
    """It would be told that there is no such model, although there is."""
    hub.model("me/reviews", {"config.json": b"{}"}, hidden=True)
    assert "is taken, by what this token may not see" in publish(client, folder, "hf://me/reviews@v2")


@pytest.mark.parametrize("fault", [503, "silent"])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/batch", "/sent/", "/commit/", "/tag/", "/refs"])
def test_faults_that_pass_do_not_show(hub, client, folder, path, fault):
    """A lost answer would be taken for somebody else's change, or a version be published without its tag."""
    method = {"/sent/": "PUT", "/refs": "GET"}.get(path, "POST")
    hub.faults.append((method, path, fault))
    assert publish(client, folder, "hf://me/reviews@v2") == "" and not hub.faults
    made = hub.repositories[("models", "me/reviews")]
    assert len(commits(hub)) <= 2 and made.tags == {"v2": made.commit} and "SHA256SUMS" in made.files


def test_what_the_repository_ignores_is_not_called_published(hub, client, folder):
    """A part of a model would be taken for all of it."""
    hub.model("me/reviews", {".gitattributes": b""}, ignored={"model.safetensors"})
    assert "did not take model.safetensors" in publish(client, folder, "hf://me/reviews@v2")
    assert not hub.repositories[("models", "me/reviews")].tags


def test_a_commit_of_somebody_else_meanwhile(hub, client, folder):
    """Of two publications at once, the later would undo the other's unseen."""
    hub.model("me/reviews", {".gitattributes": b""})
    hub.faults.append(("POST", "/commit/", 412))
    assert "was changed by somebody else meanwhile" in publish(client, folder, "hf://me/reviews@v2")


def test_names_that_are_none(hub, client, folder):
    """They would become folders of that name."""
    for where in ("hf://", "hf://me", "hf://me/a/b@v1", "hf://datasets/me/a@v1"):
        assert "names no model on the hub" in publish(client, folder, where)
    assert "names no version" in publish(client, folder, "hf://me/reviews")


def test_what_cannot_be_read_is_told(hub, client, tmp_path):
    """It would be called damaged."""
    for where, said in {"hf://me/none@v2": "has no model", "hf://me/bare": "has no SHA256SUMS"}.items():
        hub.model("me/bare", {"config.json": b"{}"})
        assert said in client.ask(DOWNLOAD, where, str(tmp_path / "fetched"))["error"]
    assert not (tmp_path / "fetched").exists()
