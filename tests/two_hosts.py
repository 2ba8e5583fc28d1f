"""Run as a program, twice: trains the toy as host `index` of two.

python -m tests.two_hosts <root> <port> <index>
"""

import sys
from dataclasses import replace
from pathlib import Path

from tests.model_toy import corpus, small
from wvm_rl.model.stages import Stages, train
from wvm_rl.sharding import HostsConfig, MeshConfig

if __name__ == "__main__":
    root, port, index = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    HostsConfig(f"127.0.0.1:{port}", 2, index).start()
    made = train(Stages(replace(small(), mesh=MeshConfig(fsdp=2)), corpus(), root))
    print(made[0].fingerprint)
