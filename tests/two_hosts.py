"""Run as a program, twice: trains the toy as host `index` of two; dies at a step if told to.

python -m tests.two_hosts <root> <port> <index> <step to die at, or -1>
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from tests.model_toy import corpus, small
from wvm_rl.model import stages as module
from wvm_rl.sharding import HostsConfig, MeshConfig

if __name__ == "__main__":
    root, port, index, die_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rows = module.shuffled_rows

    def rows_of(size, seed, step, batch):
        if step == die_at:
            os._exit(9)
        return rows(size, seed, step, batch)

    module.shuffled_rows = rows_of
    HostsConfig(f"127.0.0.1:{port}", 2, index).start()
    made = module.train(module.Stages(replace(small(), mesh=MeshConfig(fsdp=2)), corpus(), root))
    print(made[0].fingerprint)
