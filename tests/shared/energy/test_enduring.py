"""Where joules are a note beside the work, no counter that fails ends it; a measurement is not so lenient."""

import pytest
from counters import busy, fails, process_sources, zone

from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.energy.enduring import enduring
from kfp_bonsai.shared.energy.nvml import Nvml
from kfp_bonsai.shared.energy.rapl import rapl
from kfp_bonsai.shared.energy.reading import STUCK_SECONDS


def test_training_goes_on_with_the_estimate_where_a_counter_fails(tmp_path, capsys):
    """Hours of training lost for a note of what they cost, or an estimate under the label of a measurement."""
    for at, spoil in enumerate(
        [
            lambda file: file.unlink(),
            lambda file: file.write_text("N/A"),
            lambda file: file.write_text("1"),  # 260 kJ in no time: set back
            lambda file: None,  # stands still
        ]
    ):
        file = zone(tmp_path / str(at), "intel-rapl:0", 2_000_000, 262_143_328_850) / "energy_uj"
        sources = enduring([rapl(tmp_path / str(at)), energy.Memory()])
        assert sources[0].label == energy.MEASURED
        with energy.track(sources) as meter:
            busy(STUCK_SECONDS + 0.01 if at == 3 else 0.02)
            spoil(file)
            if at == 0:
                assert meter.so_far().label == energy.ESTIMATED, "told at a checkpoint already"
        assert meter.reading.label == energy.ESTIMATED and meter.reading.cpu_joules > 0
        assert "CPU estimated: codecarbon" in meter.reading.source
        assert capsys.readouterr().out.count("CPU energy is estimated") == 1


def test_training_goes_on_where_nothing_can_be_read(capsys):
    """A GPU's counter that ends in the middle, a process list that cannot be read, a memory that nobody tells."""

    class Broken:
        def __init__(self, part, label, mark=None):
            self.part, self.label, self.name, self.at = part, label, "made", mark

        def mark(self):
            return (self.at or fails(PermissionError("none of yours")))()

        def between(self, before, after):
            return float("nan")

    counter = iter([5_000])
    gpu = Nvml(lambda: next(counter), "a GPU")
    broken = [Broken(energy.CPU, energy.ESTIMATED), gpu, Broken(energy.RAM, energy.ESTIMATED, lambda: 1)]
    with energy.track(enduring(broken)) as meter:
        pass
    assert meter.reading.joules == 0 and meter.reading.label == energy.PROXY
    assert meter.reading.source.count("not counted") == 3 == capsys.readouterr().out.count("note: ")


def test_only_the_cpus_counter_has_an_estimate_in_its_place(tmp_path):
    """A measurement on a GPU whose counter failed must not end with the CPU's joules alone."""
    zone(tmp_path, "intel-rapl:0", 1, 999)
    problem = energy.CounterError("made")
    assert energy.estimates([rapl(tmp_path)], problem)[0].label == energy.ESTIMATED
    with pytest.raises(energy.CounterError, match="made"):
        energy.estimates([*process_sources(), Nvml(int, "a GPU")], problem)
