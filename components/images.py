"""The container images that the components run in, and the one that serves quantized models.

One version ties the images to the package: the tag is the package's version. BONSAI_IMAGES says where
your cluster pulls them from, such as registry.example/team/kfp-bonsai; it is read when a pipeline is compiled.
"""

import os

from kfp_bonsai import __version__

PREFIX = os.environ.get("BONSAI_IMAGES", "kfp-bonsai")
TAG = __version__.replace("+", "-")
GPU = f"{PREFIX}/gpu:{TAG}"
CPU = f"{PREFIX}/cpu:{TAG}"
EDGE = f"{PREFIX}/edge:{TAG}"
