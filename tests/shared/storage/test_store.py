"""Publishing to buckets and to a disk: the buckets are real servers' behind a proxy that injects faults."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import faults
import gcs
import pytest
import s3

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.storage import objects, on_disk
from kfp_bonsai.shared.storage.store import (
    check_location,
    download_folder,
    read_pointer,
    storage_uri,
    tidy_pointer,
    upload_folder,
    version_at,
    write_pointer,
)

BIG = {"gs": 9 << 16, "s3": 3 << 20, "": 1 << 20}  # over what is sent in one request, so that there are parts
CHUNK = {"gs": 4 << 16, "s3": 1 << 20}


@pytest.fixture(scope="module")
def servers():
    """One server of each kind for all tests, started when it is asked for; each test has a folder of its own there."""
    started = {}
    with ExitStack() as stack:

        def server(kind: str):
            if kind not in started:
                started[kind] = stack.enter_context({"gs": gcs, "s3": s3}[kind].server())
            return started[kind]

        yield server


def calm(server, kind, monkeypatch):
    """Return a server without the faults of the test before; waits are short."""
    server.faults.clear()
    server.hooks.clear()
    server.seen.clear()
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name.upper().replace("REGION_NAME", "AWS_DEFAULT_REGION"), value)
    monkeypatch.setenv(server.home, server.url)
    monkeypatch.setattr(objects, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(objects, "LONGEST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(objects, "GIVE_UP_SECONDS", 30.0)
    monkeypatch.setattr(objects, "CHUNK_BYTES", CHUNK[kind])
    monkeypatch.setattr("google.cloud.storage.blob._MAX_MULTIPART_SIZE", 8 << 16)  # by default 8 MiB in one request
    return server


@pytest.fixture(params=["gs", "s3"])
def bucket(request, servers, monkeypatch):
    """A server of each kind."""
    return calm(servers(request.param), request.param, monkeypatch)


@pytest.fixture
def impatient(monkeypatch):
    """Faults that stay are given up soon."""
    monkeypatch.setattr(objects, "GIVE_UP_SECONDS", 0.3)


@pytest.fixture
def place(request, bucket):
    """A location in the bucket that no other test uses."""
    return f"{bucket.scheme}bucket/{request.node.name}/v1"


@pytest.fixture
def folder(request, tmp_path):
    """A folder as package-model makes it: small files and one large one, in folders."""
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_text('{"a": 1}')
    (made / "deep/model.safetensors").write_bytes(
        os.urandom(BIG[next(kind for kind in BIG if kind in request.node.name)])
    )
    (made / "empty").write_bytes(b"")
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def within(location: str) -> str:
    """Return the place in the bucket."""
    return location.partition("://bucket/")[2]


def below(bucket, place: str) -> set[str]:
    """Return what is there, by the names within the location."""
    prefix = within(place) + "/"
    return {name.removeprefix(prefix) for name in bucket.names() if name.startswith(prefix)}


def scratches(bucket, place: str) -> set[str]:
    """Return what was left of what is written beside."""
    return {name for name in bucket.names() if name.startswith(within(place)) and ".part" in name}


def wholly_published(bucket, place: str, folder: Path) -> bool:
    prefix = within(place)
    wanted = {name: found for name, found in content(folder).items() if name != "SHA256SUMS"}
    manifest = "".join(f"{hashlib.sha256(found).hexdigest()}  {name}\n" for name, found in sorted(wanted.items()))
    wanted["SHA256SUMS"] = manifest.encode()
    return below(bucket, place) == set(wanted) and all(
        bucket.content(f"{prefix}/{name}") == found for name, found in wanted.items()
    )


class Disk:
    """A disk, where what is in a bucket is done to its files."""

    scheme = ""

    def put(self, name: str, content: bytes) -> None:
        """Write a file."""
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        Path(name).unlink()


@pytest.fixture(params=["gs", "s3", "disk"])
def holder(request, servers, monkeypatch):
    """A server of each kind, and a disk."""
    return Disk() if request.param == "disk" else calm(servers(request.param), request.param, monkeypatch)


@pytest.fixture
def anywhere(request, holder, tmp_path):
    """A location in a bucket of each kind, and one on a disk."""
    return f"{holder.scheme}bucket/{request.node.name}/v1" if holder.scheme else str(tmp_path / "published" / "v1")


def inside(anywhere: str) -> str:
    """Return the name by which it is put and removed."""
    return within(anywhere) or anywhere


def test_what_is_published_is_what_is_fetched(anywhere, folder, tmp_path):
    """A published model would not be the one that was packed."""
    upload_folder(folder, anywhere)
    found = download_folder(anywhere, tmp_path / "fetched")
    assert {name: each for name, each in content(found).items() if name != "SHA256SUMS"} == content(folder)
    upload_folder(found, str(tmp_path / "again"))  # its SHA256SUMS is checked, so it is right


def test_the_same_folder_again_changes_nothing(anywhere, folder):
    """A retried task would fail although its work is done, or write it anew under readers."""
    upload_folder(folder, anywhere)
    before = content(Path(anywhere)) if "://" not in anywhere else None
    upload_folder(folder, anywhere)
    if before is not None:
        assert content(Path(anywhere)) == before


def test_a_mark_of_a_folder_is_nobodys_file(bucket, folder, place, tmp_path):
    """What was made by hand in the bucket's console, to publish into, could not be published into."""
    bucket.put(within(place) + "/", b"")
    upload_folder(folder, place)
    (folder / "config.json").rename(folder / "confîg +&=%20 .json")
    bucket.put(within(place) + "2/deep/", b"")
    upload_folder(folder, f"{place}2")
    upload_folder(folder, f"{place}2")
    found = download_folder(f"{place}2", tmp_path / "fetched")
    assert {name: each for name, each in content(found).items() if name != "SHA256SUMS"} == content(folder)


def test_the_same_folder_again_sends_nothing(bucket, folder, place):
    """Gigabytes would be sent again with each retry."""
    upload_folder(folder, place)
    bucket.seen.clear()
    upload_folder(folder, place)
    assert not [request for request in bucket.seen if bucket.sends(*request)]


def test_another_folder_at_the_same_place_is_refused(anywhere, folder, tmp_path):
    """A version that is served would change under its users."""
    upload_folder(folder, anywhere)
    (folder / "config.json").write_text('{"a": 2}')
    with pytest.raises(BonsaiError, match="name a new"):
        upload_folder(folder, anywhere)
    assert (download_folder(anywhere, tmp_path / "fetched") / "config.json").read_text() == '{"a": 1}'


def test_a_manifest_that_is_wrong_is_not_published(anywhere, folder):
    """A folder that was changed after it was packed would be published under the old checksums."""
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  config.json\n")
    with pytest.raises(BonsaiError, match="is not as its SHA256SUMS says"):
        upload_folder(folder, anywhere)
    with pytest.raises(BonsaiError, match="not completely published"):
        download_folder(anywhere, folder.parent / "fetched")


def test_files_that_differ_from_the_manifest_are_not_fetched(anywhere, holder, folder, tmp_path):
    """A model that was damaged or exchanged would be served."""
    upload_folder(folder, anywhere)
    holder.put(inside(anywhere) + "/config.json", b'{"a": 6}')
    with pytest.raises(BonsaiError, match=r"config\.json is not as its SHA256SUMS says"):
        download_folder(anywhere, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_files_that_are_gone_are_told(anywhere, holder, folder, tmp_path):
    """A part of a model would be taken for all of it."""
    upload_folder(folder, anywhere)
    holder.remove(inside(anywhere) + "/config.json")
    with pytest.raises(BonsaiError, match=r"config\.json is not as its SHA256SUMS says"):
        download_folder(anywhere, tmp_path / "fetched")
    with pytest.raises(BonsaiError, match=r"config\.json.* (damaged|was removed)"):
        upload_folder(folder, anywhere)


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_manifest_cannot_write_outside_of_the_folder(name, tmp_path):
    """A stranger's manifest would overwrite files of ours."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(BonsaiError, match="is damaged, at the line"):
        download_folder(str(source), tmp_path / "fetched")


@pytest.mark.parametrize(
    ("kind", "times"),
    [("status", 3), ("half", 2), ("silent", 1), ("cut", 1), ("truncated", 1), ("truncated-silent", 1)],
)
@pytest.mark.parametrize("which", ["small", "large", "part"])
def test_faults_that_pass_do_not_show(bucket, folder, place, kind, times, which):
    """A burst of 503, a connection lost in the middle or after the last byte, or half a body would end a publication.

    "large" is what starts the upload of a large file, "part" one of its parts.
    """
    left = bucket.fail(kind, lambda method, path: bucket.sends(method, path) and getattr(bucket, which) in path, times)
    upload_folder(folder, place)
    assert left == [0], "the fault did not happen"
    assert wholly_published(bucket, place, folder)


@pytest.mark.parametrize(
    ("kind", "itself"),
    [(kind, False) for kind in ("status", "half", "silent", "truncated", "truncated-silent")]
    + [(kind, True) for kind in ("status", "cut", "silent", "truncated", "truncated-silent")],
)
def test_faults_while_the_manifest_is_written(bucket, folder, place, kind, itself):
    """The last requests of all, that beside it (the first to be sent) and its own, are as likely to break as others."""
    upload_folder(folder, place)
    bucket.remove(within(place) + "/SHA256SUMS")
    left = bucket.fail_manifest(kind, itself)
    upload_folder(folder, place)
    assert left == [0] and wholly_published(bucket, place, folder)
    assert not scratches(bucket, place)


def test_too_many_requests_are_waited_out(bucket, folder, place):
    """Status 429 asks for patience, and is no failure."""
    left = bucket.fail("status", lambda *_: True, times=5, status=429)
    upload_folder(folder, place)
    assert left == [0] and wholly_published(bucket, place, folder)


@pytest.mark.parametrize("kind", ["status", "half", "cut", "silent", "truncated", "truncated-silent"])
@pytest.mark.parametrize("which", ["part", "small"])
def test_a_fault_that_stays_leaves_no_manifest(bucket, impatient, folder, place, kind, which, tmp_path, monkeypatch):
    """Half a model would be taken for a published one."""
    bucket.fail(kind, lambda method, path: bucket.sends(method, path) and getattr(bucket, which) in path, times=10**6)
    with pytest.raises(BonsaiError) as error:
        upload_folder(folder, place)
    assert place in str(error.value) and "\n" not in str(error.value)
    assert "SHA256SUMS" not in below(bucket, place)
    with pytest.raises(BonsaiError, match="not completely published"):
        download_folder(place, tmp_path / "fetched")
    if "truncated" in kind:
        assert not scratches(bucket, place)
    bucket.faults.clear()
    monkeypatch.setattr(objects, "GIVE_UP_SECONDS", 30.0)
    upload_folder(folder, place)  # and going on works
    assert wholly_published(bucket, place, folder)


def test_an_interrupted_publication_goes_on_where_it_was(bucket, impatient, folder, place, monkeypatch):
    """All of it would be sent again after each interruption."""
    bucket.fail("status", lambda method, path: bucket.part in path, times=10**6)
    with pytest.raises(BonsaiError):
        upload_folder(folder, place)
    assert below(bucket, place) == {"config.json"}
    bucket.faults.clear()
    bucket.seen.clear()
    monkeypatch.setattr(objects, "GIVE_UP_SECONDS", 30.0)
    upload_folder(folder, place)
    assert not [path for method, path in bucket.seen if bucket.sends(method, path) and "config.json" in path]
    assert wholly_published(bucket, place, folder)


def killed_at(bucket, location: str, work: str) -> None:
    """Do something in a process that is killed once it has written beside, and has not removed that again."""

    def kill(method: str, path: str) -> None:
        if process.poll() is None and scratches(bucket, location):
            process.kill()

    code = f"from pathlib import Path; from kfp_bonsai.shared.storage.store import *; {work}"
    bucket.hooks.append(kill)
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait(60) == -signal.SIGKILL
    bucket.hooks.clear()
    assert scratches(bucket, location)


def test_a_killed_publication_goes_on_and_leaves_nothing(bucket, folder, place):
    """A retry after SIGKILL would be refused for ever by what the killed one wrote beside the manifest."""
    killed_at(bucket, place, f"upload_folder(Path({str(folder)!r}), {place!r})")
    upload_folder(folder, place)
    assert wholly_published(bucket, place, folder)
    bucket.put(f"{within(place)}/SHA256SUMS.{'0' * 32}.part", b"left after it was published")
    upload_folder(folder, place)
    assert wholly_published(bucket, place, folder)


def test_what_a_killed_writer_of_a_pointer_left_goes(bucket, place):
    """Each promotion that is killed would leave an object beside the champion for ever."""
    pointer = f"{place}/champion.json"
    killed_at(bucket, place, f"write_pointer({pointer!r}, {{'version': 'a'}}, None)")
    write_pointer(pointer, {"version": "b"}, read_pointer(pointer)[1])
    assert below(bucket, place) == {"champion.json"}
    assert read_pointer(pointer)[0] == {"version": "b"}


def test_what_somebody_else_left_there_is_not_published_too(bucket, folder, place):
    """Files of two models would be served as one: a server loads all that is below a prefix."""
    bucket.put(within(place) + "/deep/other.safetensors", b"other")
    with pytest.raises(BonsaiError, match=r"other\.safetensors is there already"):
        upload_folder(folder, place)
    assert below(bucket, place) == {"deep/other.safetensors"}


def test_a_file_that_is_exchanged_while_others_are_sent(bucket, folder, place):
    """The manifest would tell of another file than the one that lies there."""
    name = within(place) + "/config.json"

    def exchange(method: str, path: str) -> None:
        if bucket.part in path and bucket.content(name) != b"other":
            bucket.put(name, b"other")

    bucket.hooks.append(exchange)
    with pytest.raises(BonsaiError, match=r"config\.json is there already and is not what is to be published"):
        upload_folder(folder, place)
    assert "SHA256SUMS" not in below(bucket, place)


def test_two_writers_do_not_mix(bucket, folder, place, tmp_path):
    """Two runs that publish at once would leave files of both under one manifest."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "empty", "more"):
        (other / name).write_text("another model")
    outcomes: list[BaseException | None] = []

    def publish(which: Path) -> None:
        try:
            upload_folder(which, place)
            outcomes.append(None)
        except BonsaiError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=publish, args=[which]) for which in (folder, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(None) <= 1
    if None in outcomes:
        found = download_folder(place, tmp_path / "fetched")
        (found / "SHA256SUMS").unlink()
        assert content(found) in (content(folder), content(other))
    else:
        assert "SHA256SUMS" not in below(bucket, place)


def test_a_download_that_breaks_off_goes_on(bucket, folder, place, tmp_path):
    """A lost connection while a model is fetched would end a run."""
    upload_folder(folder, place)
    left = bucket.fail("status", bucket.fetches, times=4)
    lost = bucket.fail("silent", bucket.fetches, times=2)
    found = download_folder(place, tmp_path / "fetched")
    assert left == [0] and lost == [0]
    (found / "SHA256SUMS").unlink()
    assert content(found) == content(folder)


def test_a_slow_download_that_breaks_off_goes_on(bucket, impatient, folder, place, tmp_path):
    """Of a large model over a slow line, the first lost connection would be the last: the time to give up was over."""

    def large(method, path):
        return method == "GET" and "model.safetensors" in path and bucket.fetches(method, path)

    upload_folder(folder, place)
    bucket.hooks.append(lambda *asked: time.sleep(0.4 * large(*asked)))
    left = bucket.fail("broken", large, times=3)
    found = download_folder(place, tmp_path / "fetched")
    (found / "SHA256SUMS").unlink()
    assert left == [0] and content(found) == content(folder)


def test_a_pointer_is_replaced_only_as_it_was_read(anywhere):
    """Of two retrainings, the later one would silently undo what the other one promoted."""
    pointer = f"{anywhere}/champion.json"
    assert read_pointer(pointer) == (None, None)
    write_pointer(pointer, {"model": "first"}, None)
    document, token = read_pointer(pointer)
    assert document == {"model": "first"} and token
    write_pointer(pointer, {"model": "second"}, token)
    for old in (token, None):
        with pytest.raises(BonsaiError, match="changed or removed by somebody else"):
            write_pointer(pointer, {"model": "third"}, old)
    assert read_pointer(pointer)[0] == {"model": "second"}


def test_a_pointer_that_has_vanished_is_not_made_again(anywhere, holder):
    """A champion that somebody withdrew would be back, unseen."""
    pointer = f"{anywhere}/champion.json"
    write_pointer(pointer, {"model": "first"}, None)
    _, token = read_pointer(pointer)
    holder.remove(inside(pointer))
    with pytest.raises(BonsaiError, match="changed or removed by somebody else"):
        write_pointer(pointer, {"model": "second"}, token)
    assert read_pointer(pointer) == (None, None)


def test_of_many_writers_of_a_pointer_one_wins(anywhere):
    """The check and the writing would not be one step."""
    pointer = f"{anywhere}/champion.json"
    won: list[int] = []

    def write(number: int) -> None:
        try:
            write_pointer(pointer, {"model": number}, None)
            won.append(number)
        except BonsaiError:
            pass

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and read_pointer(pointer)[0] == {"model": won[0]}


@pytest.mark.parametrize("replaced", [False, True], ids=["beside", "itself"])
@pytest.mark.parametrize("kind", ["status", "half", "silent", "cut", "truncated", "truncated-silent"])
def test_a_pointer_is_written_through_faults(bucket, place, kind, replaced):
    """A lost answer would be taken for somebody else's change, although the change was ours."""
    pointer = f"{place}/champion.json"
    write_pointer(pointer, {"model": "first"}, None)
    _, token = read_pointer(pointer)
    left = bucket.fail(
        kind, lambda method, path: bucket.sends(method, path) and bucket.replaces(method, path) == replaced
    )
    write_pointer(pointer, {"model": "second"}, token)
    assert left == [0] and read_pointer(pointer)[0] == {"model": "second"}
    assert below(bucket, place) == {"champion.json"}


@pytest.mark.parametrize("kind", ["status", "half", "silent", "cut", "truncated", "truncated-silent"])
def test_a_fault_that_stays_leaves_the_pointer_as_it_was(bucket, impatient, place, kind):
    """Half a pointer in the place of the old one: no model in use, because a new one could not be promoted."""
    pointer, name = f"{place}/champion.json", within(f"{place}/champion.json")
    write_pointer(pointer, {"model": "first"}, None)
    before, token = bucket.content(name), read_pointer(pointer)[1]
    left = bucket.fail(kind, bucket.sends, times=10**6)
    with pytest.raises(BonsaiError, match=r"champion\.json"):
        write_pointer(pointer, {"model": "second"}, token)
    assert left[0] < 10**6 and bucket.content(name) == before and read_pointer(pointer)[1] == token


@pytest.mark.parametrize("kind", ["truncated", "truncated-silent"])
def test_half_that_always_arrives_is_mended_and_never_read(bucket, folder, place, kind):
    """A pointer that is cut would stay cut, and a manifest cut at a line's end would be that of a smaller package."""
    pointer, seen = f"{place}/champion.json", []

    def look(method: str, path: str) -> None:
        if bucket.copies(method, path):  # half of it lies there until this request is answered
            bucket.hooks.clear()
            with pytest.raises(BonsaiError, match="is there in part"):
                read_pointer(pointer) if "champion.json" in path else download_folder(place, folder.parent / "half")
            seen.append(path)

    upload_folder(folder, place)
    bucket.remove(within(place) + "/SHA256SUMS")
    left = bucket.fail_manifest(kind, itself=True, times=10**6)
    bucket.hooks.append(look)
    upload_folder(folder, place)
    assert left[0] < 10**6 and wholly_published(bucket, place, folder)
    write_pointer(pointer, {"model": "first"}, None)
    _, token = read_pointer(pointer)
    left = bucket.fail(kind, bucket.replaces, times=10**6)
    bucket.hooks.append(look)
    write_pointer(pointer, {"model": "second"}, token)
    assert left[0] < 10**6 and read_pointer(pointer)[0] == {"model": "second"} and len(seen) == 2
    assert not scratches(bucket, place)


def test_half_a_manifest_of_a_writer_that_died_is_refused(bucket, folder, place, tmp_path):
    """Cut at a line's end it lists fewer files, and would be taken for the whole of a smaller package."""
    upload_folder(folder, place)
    name = within(place) + "/SHA256SUMS"
    whole = bucket.content(name)
    bucket.put(name, whole[: whole.index(b"\n") + 1], like=name)
    with pytest.raises(BonsaiError, match="SHA256SUMS is there in part"):
        download_folder(place, tmp_path / "fetched")
    with pytest.raises(BonsaiError, match="remove it and write it again"):
        upload_folder(folder, place)
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_damaged_pointer_is_told(anywhere, holder, text):
    """A traceback of the decoder, or no champion where there is one."""
    pointer = f"{anywhere}/champion.json"
    holder.put(inside(pointer), text.encode("latin-1"))
    with pytest.raises(BonsaiError, match=r"champion\.json (is damaged|holds no JSON object)"):
        read_pointer(pointer)


CALLS = {
    "upload": lambda where, folder: upload_folder(folder, where),
    "download": lambda where, folder: download_folder(where, folder.parent / "new"),
    "read": lambda where, _: read_pointer(where),
    "write": lambda where, _: write_pointer(where, {}, None),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_a_bucket_that_does_not_exist(bucket, folder, call):
    """It would be taken for an empty one, or told as a traceback."""
    with pytest.raises(BonsaiError, match="no bucket 'nobody'"):
        call(f"{bucket.scheme}nobody/models/v1", folder)


@every_call
@pytest.mark.parametrize(("status", "said"), [(401, "credentials were refused|denied"), (403, "access is denied")])
def test_no_permission(bucket, folder, place, call, status, said):
    """Nobody would know which right is missing."""
    bucket.fail("status", lambda *_: True, times=10**6, status=status)
    with pytest.raises(BonsaiError, match=said):
        call(place, folder)
    assert not below(bucket, place)


@every_call
def test_an_endpoint_that_is_down(bucket, impatient, folder, monkeypatch, call):
    """A hundred lines of the client's, minutes later."""
    monkeypatch.setenv(bucket.home, f"http://{faults.HOST}:{faults.free_port()}")
    with pytest.raises(PassingError, match=r"cannot be (read|written) .*check the network"):
        call(f"{bucket.scheme}bucket/models/v1", folder)


@pytest.mark.parametrize("call", [CALLS["upload"], CALLS["write"]], ids=["upload", "write"])
def test_no_credentials(folder, monkeypatch, call):
    """Writing without credentials would be tried anonymously, and refused without a hint."""
    from google.auth.exceptions import DefaultCredentialsError

    def none(*_, **__):
        raise DefaultCredentialsError("none found")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(BonsaiError, match=r"no credentials to write with: log in"):
        call("gs://bucket/models/v1", folder)


@every_call
@pytest.mark.parametrize("metadata_server", [False, True], ids=["key", "pod"])
def test_no_network_with_credentials(impatient, folder, monkeypatch, call, metadata_server):
    """Whoever is offline would be told to log in again: nobody was reached who could have refused the credentials."""
    from google.auth import compute_engine, credentials
    from google.auth.exceptions import TransportError

    class Key(credentials.Credentials):
        def refresh(self, request):
            raise TransportError("no route to the host")

    def unreachable(*_, **__):
        raise TransportError("no route to the host")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.compute_engine._metadata.get", unreachable)
    found = compute_engine.Credentials() if metadata_server else Key()
    monkeypatch.setattr("google.auth.default", lambda *_, **__: (found, "p"))
    with pytest.raises(PassingError, match=r"cannot be (read|written) \(no route to the host\): check the network"):
        call("gs://bucket/models/v1", folder)


@every_call
@pytest.mark.parametrize(
    ("where", "said"),
    [
        *[(scheme, "names no bucket") for scheme in ("gs://", "s3://", "s3:///models")],
        *[(f"{scheme}bucket/", "whole bucket") for scheme in ("gs://", "s3://")],
        *[(f"{scheme}b/a", f"{scheme} is not known") for scheme in ("s4://", "S3://", "https://", "minio://")],
        ("", "empty"),
    ],
)
def test_locations_that_are_none(folder, call, where, said):
    """A misspelt location would become a local folder of that name."""
    with pytest.raises(BonsaiError, match=said):
        call(where, folder)


def test_where_versions_are_and_what_kserve_calls_them():
    """A manifest would name a place that KServe does not find."""
    assert version_at("gs://bucket/models/", "v2") == storage_uri("gs://bucket/models/v2") == "gs://bucket/models/v2"
    assert version_at("s3://bucket/models", "v2") == storage_uri("s3://bucket/models/v2") == "s3://bucket/models/v2"
    assert version_at("hf://me/reviews", "v2") == "hf://me/reviews@v2"
    assert storage_uri("hf://me/reviews@v2") == "hf://me/reviews:v2"
    assert version_at("/models", "v2") == "/models/v2" and storage_uri("/models/v2") == ""
    check_location("hf://me/reviews", hub=True)
    for where, said in {"hf://me/reviews@v2": "leave out the @", "hf://me": "names no model"}.items():
        with pytest.raises(BonsaiError, match=said):
            check_location(where, hub=True)
    for call in (check_location, read_pointer):
        with pytest.raises(BonsaiError, match="the hub holds models alone, and no champion"):
            call("hf://me/reviews")


def test_folders_that_cannot_be_published(tmp_path):
    """Nothing would be published, and called a success."""
    with pytest.raises(BonsaiError, match="there is no folder"):
        upload_folder(tmp_path / "none", str(tmp_path / "published"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BonsaiError, match="is empty"):
        upload_folder(tmp_path / "empty", str(tmp_path / "published"))
    (tmp_path / "empty/a\nb").write_text("")
    with pytest.raises(BonsaiError, match="line break"):
        upload_folder(tmp_path / "empty", str(tmp_path / "published"))


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
    """Half a model would be found where a whole one was wanted."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(BonsaiError, match="no space left on the disk"):
        upload_folder(folder, str(tmp_path / "published/v1"))
    assert list((tmp_path / "published").iterdir()) == []


def test_somebody_quicker_with_the_same_is_as_good(folder, tmp_path, monkeypatch):
    """A retried task that meets its own first try would fail, or one model be put into another."""
    target, copy = tmp_path / "published", on_disk._to_disk

    def meanwhile(scratch: Path) -> None:
        copy(scratch)
        monkeypatch.setattr(on_disk, "_to_disk", copy)
        upload_folder(folder, str(target))

    monkeypatch.setattr(on_disk, "_to_disk", meanwhile)
    upload_folder(folder, str(target))
    assert set(content(target)) == {*content(folder), "SHA256SUMS"}


def test_what_is_no_file_is_not_waited_for(tmp_path):
    """A pipe in the place of a pointer or of a published file, at which a retraining hangs for good."""
    os.mkfifo(tmp_path / "pointer.json")
    with pytest.raises(BonsaiError, match="is no file"):
        read_pointer(str(tmp_path / "pointer.json"))
    published = tmp_path / "published"
    published.mkdir()
    (published / "SHA256SUMS").write_text(f"{'0' * 64}  weights\n")
    os.mkfifo(published / "weights")
    with pytest.raises(BonsaiError, match="is no file"):
        download_folder(str(published), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (published / "weights").unlink()
    (published / "weights").symlink_to(published / "weights")
    with pytest.raises(BonsaiError, match="cannot be read"):
        download_folder(str(published), tmp_path / "model")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BonsaiError, match="is damaged"):
        read_pointer(str(tmp_path / "deep.json"))


def test_what_killed_writers_left_on_a_disk_goes_though_all_is_there(folder, tmp_path):
    """A promotion that is killed right after its work leaves folders beside the champion that nobody ever removes."""
    place, pointer = tmp_path / "versions" / "gs", tmp_path / "champion.json"
    upload_folder(folder, str(place))
    write_pointer(str(pointer), {"version": "a"}, None)
    for left in (tmp_path / "versions" / ".gs.12345678.unfinished", tmp_path / ".champion.json.12345678.unfinished"):
        left.mkdir()
    upload_folder(folder, str(place))
    tidy_pointer(str(pointer))
    assert not [*tmp_path.rglob("*.unfinished")]
