"""What decides int8 sums: recorded where a model was measured, and held against where it is loaded."""

import platform

import pytest

from kfp_bonsai.shared.inference import processor, runtimes

WITH, WITHOUT = "flags\t\t: fpu avx avx2 avx512f avx512_vnni", "flags\t\t: fpu avx avx2"


@pytest.fixture
def on(tmp_path, monkeypatch):
    """A function that makes this a processor with these lines in /proc/cpuinfo."""

    def change(text: str | None, machine: str = "x86_64") -> None:
        (tmp_path / "cpuinfo").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: made\n{text}\n")
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")

    return change


@pytest.mark.parametrize(
    ("text", "machine", "sets", "exact"),
    [
        (WITH, "x86_64", ["avx2", "avx512f", "avx512_vnni"], True),
        (WITHOUT, "x86_64", ["avx2"], False),
        ("flags : avx2 avx_vnni", "x86_64", ["avx2", "avx_vnni"], True),
        ("Features\t: fp asimd asimddp i8mm", "aarch64", ["asimd", "asimddp", "i8mm"], True),
        (None, "x86_64", [], None),
        (None, "arm64", [], True),
    ],
)
def test_the_sets_that_decide_are_found(on, text, machine, sets, exact):
    """A processor that saturates is taken for one that does not, or the other way round."""
    on(text, machine)
    assert (processor.instruction_sets(), processor.sums_exactly()) == (sets, exact)


@pytest.mark.parametrize(
    ("made_on", "bits", "served_on", "doubted"),
    [
        (WITH, 8, WITHOUT, "which this one lacks"),
        (WITHOUT, 8, WITH, "which this one has"),
        (WITH, 7, WITHOUT, ""),
        (WITH, 8, WITH, ""),
        (WITH, 8, None, ""),
        (None, 8, WITHOUT, ""),
    ],
)
def test_a_processor_of_the_other_kind_is_told_of(on, made_on, bits, served_on, doubted):
    """Other answers than were measured, without a word; or a warning where nothing differs."""
    on(made_on)
    record = {"agreement": 0.99, "processor": processor.as_record(bits)}
    on(served_on)
    found = processor.doubt(record)
    assert (doubted in found and "99.0%" in found and "--any-processor" in found) if doubted else found == ""


@pytest.mark.parametrize("old", [{}, {"agreement": 1.0}, {"processor": None}, {"processor": "x"}])
def test_records_from_before_are_taken(on, old):
    """A model of an earlier version that cannot be loaded any more."""
    on(WITHOUT)
    assert processor.doubt(old) == ""


def test_loading_tells_of_it_once(on, tmp_path, monkeypatch, capsys):
    """A note for each of a thousand loads, or for none."""
    on(WITH)
    (tmp_path / "model.onnx").touch()
    quantization = {"agreement": 0.99, "processor": processor.as_record(8)}
    record = {"runtime": "openvino", "lineage": [], "quantization": quantization}
    (tmp_path / "bonsai.json").write_text(str(record).replace("'", '"').replace("True", "true"))
    monkeypatch.setattr(runtimes, "onnx_predictor", lambda *_, **__: "loaded")
    on(WITHOUT)
    assert [runtimes.load_predictor(tmp_path) for _ in range(2)] == ["loaded"] * 2
    assert capsys.readouterr().out.count("note: ") == 1
