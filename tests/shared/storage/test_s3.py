"""What only stores of S3's kind do: conditions ignored or unknown, tokens that expire, ETags that tell nothing."""

import os

import faults
import pytest
import s3
import tiny

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.storage import objects
from kfp_bonsai.shared.storage.store import download_folder, read_pointer, upload_folder, write_pointer

CODE = "<?xml version='1.0'?><Error><Code>%s</Code><Message>as the test wants it</Message></Error>"
SECRET = s3.KEYS["aws_secret_access_key"]


@pytest.fixture(scope="module")
def running():
    """One server for all tests."""
    with s3.server() as found:
        yield found


@pytest.fixture
def bucket(running, monkeypatch):
    """The server, as it is by itself; waits are short."""
    for kept in (running.faults, running.hooks, running.seen, running.without):
        kept.clear()
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name.upper().replace("REGION_NAME", "AWS_DEFAULT_REGION"), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {"FIRST_DELAY": 0.001, "LONGEST_DELAY": 0.01, "GIVE_UP": 1.0}.items():
        monkeypatch.setattr(objects, f"{name}_SECONDS", value)
    monkeypatch.setattr(objects, "CHUNK_BYTES", 1 << 20)
    return running


@pytest.fixture
def place(request):
    """A location that no other test uses."""
    return f"s3://bucket/{request.node.name}/v1"


@pytest.fixture
def folder(tmp_path):
    """A small file and a large one."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(os.urandom(3 << 20))
    return made


def below(bucket, place: str) -> set[str]:
    prefix = place.removeprefix("s3://bucket/") + "/"
    return {name.removeprefix(prefix) for name in bucket.names() if name.startswith(prefix)}


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_server_that_ignores_conditions_is_refused_before_anything_changes(bucket, place, header):
    """Of two retrainings the later one would undo unseen what the other one promoted."""
    pointer = f"{place}/champion.json"
    token = None
    if header == "If-Match":
        write_pointer(pointer, {"model": "first"}, None)
        token = read_pointer(pointer)[1]
    bucket.without["PUT"] = {header}
    with pytest.raises(BonsaiError, match=rf"no conditional writes \({header}\)"):
        write_pointer(pointer, {"model": "second"}, token)
    assert read_pointer(pointer)[0] == ({"model": "first"} if token else None)
    assert below(bucket, place) == ({"champion.json"} if token else set())


def test_a_server_that_ignores_conditions_of_parts_is_refused(bucket, place, folder):
    """Two writers at one place would leave a file of the one below the manifest of the other."""
    bucket.without["POST"] = {"If-None-Match"}
    with pytest.raises(BonsaiError, match="no conditional writes"):
        upload_folder(folder, place)
    assert below(bucket, place) == {"config.json"}


def test_a_server_that_knows_no_conditions_is_refused(bucket, place, folder):
    """A status that nobody can read."""
    bucket.fail(
        "status", lambda method, _: method == "PUT", times=99, status=501, body=CODE.encode() % b"NotImplemented"
    )
    with pytest.raises(BonsaiError, match="no conditional writes"):
        upload_folder(folder, place)
    assert not below(bucket, place)


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired"])
def test_a_token_that_expires_in_the_middle_of_an_upload(bucket, place, folder, code):
    """A traceback after gigabytes, and nobody would know that going on is possible."""
    answer = {"status": 400, "body": CODE.encode() % code.encode()}
    seen = []

    def later(method: str, path: str) -> bool:
        seen.extend([path] if "model.safetensors?" in path and "partNumber" in path else [])
        return len(seen) > 1

    bucket.fail("status", later, times=10**6, **answer)
    with pytest.raises(BonsaiError, match=rf"v1: the credentials have expired \({code}\): get new ones") as error:
        upload_folder(folder, place)
    assert not isinstance(error.value, PassingError) and "SHA256SUMS" not in below(bucket, place)
    bucket.faults.clear()
    bucket.seen.clear()
    upload_folder(folder, place)
    assert not [path for method, path in bucket.seen if method == "PUT" and path.endswith("config.json")]
    download_folder(place, folder.parent / "fetched")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "the credentials were refused"),
        (403, "SignatureDoesNotMatch", "the credentials were refused"),
        (403, "AccessDenied", r"access is denied \(AccessDenied\).*s3:PutObject"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (301, "PermanentRedirect", "AWS_DEFAULT_REGION"),
        (507, "XMinioStorageFull", "the server refuses"),
        (503, "SlowDown", "cannot be written"),
        (409, "ConditionalRequestConflict", "cannot be written"),
    ],
)
def test_what_a_server_refuses_is_told_in_words(bucket, place, folder, status, code, said):
    """Each asks for something else to be done."""
    bucket.fail(
        "status", lambda method, _: method == "PUT", times=10**6, status=status, body=CODE.encode() % code.encode()
    )
    with pytest.raises(BonsaiError, match=said) as error:
        upload_folder(folder, place)
    assert isinstance(error.value, PassingError) == (said == "cannot be written")
    assert "\n" not in str(error.value) and SECRET not in str(error.value)


def test_a_gateway_that_answers_in_html_is_waited_out(bucket, place, folder):
    """Its page would be taken for a broken answer of the store."""
    left = bucket.fail("status", lambda *_: True, times=4, status=502, body=b"<html>Bad Gateway</html>")
    upload_folder(folder, place)
    assert left == [0]


def test_etags_that_are_no_checksums(bucket, place, folder, monkeypatch):
    """A bucket that encrypts by a key of its own would refuse what it holds whole, or be believed where it does not."""
    monkeypatch.setattr("kfp_bonsai.shared.storage.s3_bucket._etags", lambda file: frozenset())
    upload_folder(folder, place)
    upload_folder(folder, place)
    name = place.removeprefix("s3://bucket/") + "/config.json"
    bucket.put(name, b"[]")  # of the same size
    with pytest.raises(BonsaiError, match=r"not as its SHA256SUMS says"):
        download_folder(place, folder.parent / "fetched")
    bucket.remove(place.removeprefix("s3://bucket/") + "/SHA256SUMS")
    with pytest.raises(BonsaiError, match=r"config\.json is there already and is not what is to be published"):
        upload_folder(folder, place)


def test_no_credentials(monkeypatch, folder, bucket, place):
    """Whoever has none would be told that a signature is wrong; what is public can be read without."""
    upload_folder(folder, place)
    for name in below(bucket, place):
        bucket.client().put_object_acl(
            Bucket="bucket", Key=place.removeprefix("s3://bucket/") + f"/{name}", ACL="public-read"
        )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    with pytest.raises(BonsaiError, match="no credentials to write with: set AWS_PROFILE"):
        write_pointer(f"{place}/champion.json", {}, None)
    download_folder(place, folder.parent / "fetched")
    bucket.put(place.removeprefix("s3://bucket/") + "/champion.json", b"{}")
    with pytest.raises(BonsaiError, match=r"access is denied .*no credentials were found"):
        read_pointer(f"{place}/champion.json")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "minio:9000", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL"),
        ("AWS_PROFILE", "nobody", "AWS_PROFILE"),
    ],
)
def test_settings_that_are_wrong(bucket, place, folder, monkeypatch, name, value, said):
    """A traceback of AWS's client."""
    monkeypatch.setenv(name, value or f"http://user:{SECRET}@{faults.HOST}:{faults.free_port()}")
    with pytest.raises(BonsaiError, match=said if value else "cannot be written") as error:
        upload_folder(folder, place)
    assert SECRET not in str(error.value)


def test_keys_in_a_location_are_refused_without_a_word_of_them(folder):
    """They would stand in the run's log, its records and its report."""
    with pytest.raises(BonsaiError, match="keys and passwords in the environment") as error:
        upload_folder(folder, f"s3://AKIAMADE:{SECRET}@bucket/models")
    assert SECRET not in str(error.value) and "AKIAMADE" not in str(error.value)


@pytest.mark.parametrize("published", [True, False])
def test_a_model_in_a_bucket(bucket, place, tmp_path, monkeypatch, published):
    """A cluster without the hub has its models in MinIO; each stage would fetch it again, or go on with an old one."""
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path / "cache"))
    made, key = tiny.pretrained(tmp_path / "made"), place.removeprefix("s3://bucket/")
    if published:
        upload_folder(made, place)
    else:
        for path in made.iterdir():
            bucket.put(f"{key}/{path.name}", path.read_bytes())
        bucket.put(f"{key}/", b"")  # as consoles make folders
    read = pretrained.read(place + "/")
    assert read.config.model_type == "bert" and read.folder.is_relative_to(tmp_path / "cache")
    bucket.seen.clear()
    assert pretrained.read(place).folder == read.folder
    assert not [path for method, path in bucket.seen if bucket.fetches(method, path)]
    bucket.put(f"{key}/config.json", b"{}")
    with pytest.raises(
        BonsaiError, match=r"config\.json is not as its SHA" if published else r"a_model_in_a_bucket.*config\.json"
    ):
        pretrained.read(place)
    with pytest.raises(BonsaiError, match="there is nothing in the bucket below that"):
        pretrained.read(f"{place}-not")


def test_more_objects_than_a_page(bucket, place, folder):
    """What stands on the second page would be sent again, or not be seen as another's."""
    for number in range(3):
        bucket.put(place.removeprefix("s3://bucket/") + f"/{number}", b"")
    client = objects_in_pages_of_two(bucket)
    assert len(client.list(place.removeprefix("s3://bucket/"))) == 3


def objects_in_pages_of_two(bucket):
    from kfp_bonsai.shared.storage.buckets import open_bucket

    found = open_bucket("s3://bucket/x")[0]
    found._client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    return found
