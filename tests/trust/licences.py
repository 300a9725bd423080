"""Print each installed package with its version and its licence, as it states it."""

from importlib import metadata

LONGEST = 60  # letters; some state the whole text


def licence(package: metadata.Distribution) -> str:
    """Return what a package says of its licence: an expression, else classifiers, else a line of text."""
    found = package.metadata
    classified = [
        one.rpartition(" :: ")[2] for one in found.get_all("Classifier") or () if one.startswith("License ::")
    ]
    lines = (found.get("License-Expression") or ", ".join(classified) or found.get("License") or "").splitlines()
    return lines[0][:LONGEST] if lines else "not stated"


if __name__ == "__main__":
    packages = {one.metadata["Name"]: one for one in metadata.distributions()}
    for name in sorted(packages, key=str.lower):
        print(f"{name} {packages[name].version}".ljust(50), licence(packages[name]))
