"""Print what pyproject.toml says the package needs, a line each; with the names of extras, what those need."""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for group in [project["optional-dependencies"][extra] for extra in sys.argv[1:]] or [project["dependencies"]]:
    print(*group, sep="\n")
