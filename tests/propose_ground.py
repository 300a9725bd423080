"""What a made-up search stands on."""

from kfp_bonsai.propose.ground import Ground

ROWS = 1000
GROUND = Ground(
    layers=6,
    limits={"free": {str(layers): [0.01 + 0.004 * layers, layers / 6] for layers in range(1, 7)}},
    error=0.05,
    device="cpu (a test, threads: 1), torch 2",
    baseline={
        **{"accuracy": 0.85, "rows": ROWS, "latency_ms": 10.0, "size_mb": 90.0, "size_rest_mb": 45.0},
        "emission": 1.0,
    },
)
