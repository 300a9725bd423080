"""Free types among those that transformers knows."""

import subprocess
import sys


def test_it_is_no_matter_what_was_imported_of_transformers_before():
    """Registered while transformers imported BERT's configuration, the types failed unseen, and were never known."""
    code = """
import kfp_bonsai
from transformers import BertConfig
from transformers import AutoConfig, AutoModel
config = AutoConfig.for_model("bonsai-bert", layer_shapes=[[2, 32]], num_hidden_layers=1)
print(type(AutoModel.from_config(config)).__name__)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "BonsaiBertModel"
