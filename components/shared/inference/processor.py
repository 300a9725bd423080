"""What of this processor decides how int8 products are summed.

Without VNNI or AMX, an x86 processor sums two products of unsigned and signed bytes in 16 bits, and what does not fit
is cut off: a model then answers otherwise than where its agreement was measured. Weights of 7 bits always fit. Arm's
instructions keep the whole sum.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
EXACT = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")  # as Linux names them
TOLD = ("avx2", "avx512f", *EXACT, "asimd", "asimddp", "i8mm", "sve")
X86 = ("x86_64", "AMD64", "i686")
FULL_BITS, FITTING_BITS = 8, 7
WEIGHTS = "weights"  # the scheme of models that write: what these are multiplied with is rounded where they run


def instruction_sets() -> list[str]:
    """Return those of this processor's instruction sets that int8 runs on; none where the system does not tell."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    named = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return [name for name in TOLD if name in named.partition(":")[2].split()]


def sums_exactly() -> bool | None:
    """Say whether sums of 8-bit products are exact here; None if that is not known."""
    if platform.machine() not in X86:
        return True
    found = instruction_sets()
    return any(name in EXACT for name in found) if found else None


def as_record(weight_bits: int) -> dict[str, Any]:
    """Return what the record of a model tells of the processor that its agreement was seen on."""
    return {
        "machine": platform.machine(),
        "instruction_sets": instruction_sets(),
        "exact": sums_exactly(),
        "weight_bits": weight_bits,
    }


def doubt(quantization: Mapping[str, Any]) -> str:
    """Return why a quantized model may answer otherwise here than its record says, or ""."""
    was, here = quantization.get("processor"), sums_exactly()
    if not isinstance(was, Mapping) or was.get("weight_bits") != FULL_BITS or None in (was.get("exact"), here):
        return ""  # recorded before this was, or right everywhere, or not known
    if was["exact"] == here:
        return ""
    or_else = "" if quantization.get("scheme") == WEIGHTS else ", or with --any-processor"
    seen = "with VNNI or AMX, which this one lacks" if was["exact"] else "without VNNI and AMX, which this one has"
    return (
        f"its agreement of {quantization.get('agreement') or 0:.1%} with the unquantized model was seen on a processor "
        f"{seen}: here it may answer otherwise. Quantize on such a machine as this{or_else}"
    )
