"""How long a network takes to convert, and how much memory beyond its own, each in a process of its own.

    python benchmarks/conversion.py [NETWORK …]

NETWORK is a name of ``edgeco models``; X3D-L unless given.
"""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, resource, sys, time
import torch, edgeco
from edgeco.factory import find_factory

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

edgeco.convert(torch.nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 8))  # what PyTorch loads once
factory = find_factory(sys.argv[1])
net = factory().eval()
clip = torch.zeros(1, *factory.clip)
before, began = peak(), time.perf_counter()
program = edgeco.convert(net, clip, time_dim=getattr(factory, "time_dim", 2))
print(json.dumps({"seconds": time.perf_counter() - began, "bytes": peak() - before}))
"""


def main(names: list[str]) -> None:
    """Convert and print."""
    print(f"{'network':20}{'seconds':>10}{'more GB at the peak':>22}")
    for name in names:
        ran = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(ran.stderr)
        facts = json.loads(ran.stdout.splitlines()[-1])
        print(f"{name:20}{facts['seconds']:10.1f}{facts['bytes'] / 1e9:22.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["x3d-l"])
