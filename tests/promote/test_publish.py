"""A champion's package in a bucket: whole, and with manifests that name the place."""

import gcs
import pytest

from kfp_bonsai.promote.publish import publish
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage.store import download_folder, write_manifest

KSERVE = """# Sized by what was measured.
# storageUri: put the folder there, or publish it with `bonsai package-model --upload gs://...`.
spec:
  model:
    storageUri: pvc://models/reviews
    runtime: ours
"""


def test_the_manifest_names_where_the_champion_is(tmp_path, monkeypatch):
    """It would be served from a volume that nobody made; or a package that was changed be published as it is."""
    package = tmp_path / "package"
    (package / "deep").mkdir(parents=True)
    (package / "kserve-gpu.yaml").write_text(KSERVE)
    (package / "deep/model.safetensors").write_bytes(b"weights")
    write_manifest(package)
    with gcs.server() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        for _ in range(2):  # a retried task
            publish(package, "gs://bucket/champion/versions/v1")
        found = download_folder("gs://bucket/champion/versions/v1", tmp_path / "found")
        text = (found / "kserve-gpu.yaml").read_text()
        assert "    storageUri: gs://bucket/champion/versions/v1\n    runtime: ours" in text and "# storage" not in text
        assert (found / "deep/model.safetensors").read_bytes() == b"weights"
        assert (package / "kserve-gpu.yaml").read_text() == KSERVE
        (package / "deep/model.safetensors").write_bytes(b"others")
        with pytest.raises(BonsaiError, match="is not as its SHA256SUMS says"):
            publish(package, "gs://bucket/champion/versions/v2")
    write_manifest(package)
    publish(package, str(tmp_path / "champion"))
    assert (tmp_path / "champion/kserve-gpu.yaml").read_text() == KSERVE
