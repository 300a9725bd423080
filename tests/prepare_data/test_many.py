"""What is there a hundred thousand times is gone through once: input that a stranger sends is answered in its time."""

import json
import time

import pytest
import yaml

from kfp_bonsai.pipelines.yaml_file import Loader
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError

MANY = 40_000
SECONDS = 15.0  # of a processor; what looks for each among all takes minutes

GIVEN = {
    "columns.csv": (",".join(f"c{at}" for at in range(MANY)) + "\n1,2\n") * 2,
    "keys.jsonl": "".join("{" + ", ".join(f'"{at % (MANY - 1)}": 1' for at in range(MANY)) + "}\n" for _ in range(2)),
    "labels.jsonl": "".join(
        json.dumps({"text": f"a {row}", "labels": [f"l{at % (MANY - 1)}" for at in range(MANY)]}) + "\n"
        for row in range(2)
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_rows_with_very_many_parts(tmp_path, name):
    """A small file keeps a stage busy for hours."""
    (tmp_path / name).write_text(GIVEN[name])
    started = time.process_time()
    with pytest.raises(BonsaiError):
        prepare_data(str(tmp_path / name), *(tmp_path / one for one in "abcd"))
    assert time.process_time() - started < SECONDS


def test_settings_with_very_many_keys():
    """A small file keeps what compiles a pipeline busy for hours."""
    keys = [yaml.ScalarNode("tag:yaml.org,2002:str", f"k{at % (MANY - 1)}") for at in range(MANY)]
    started = time.process_time()
    with pytest.raises(yaml.constructor.ConstructorError, match="'k0' is there twice"):
        Loader("").construct_mapping(yaml.MappingNode("tag:yaml.org,2002:map", [(key, key) for key in reversed(keys)]))
    assert time.process_time() - started < SECONDS
