"""A robot that acts on what it has seen: python robot.py NET.edgeco SOURCE"""

import sys

import edgeco

with edgeco.load(sys.argv[1]).stream() as stream, edgeco.open_source(sys.argv[2]) as source:
    doing = None
    for frame in source:
        if frame.gap > 5:
            stream.reset()  # so much is missing that the past is another scene's
        result = stream.step(frame)
        if result.valid and (best := result.top(1)[0]).score > 0.6 and best.label != doing:
            doing = best.label
            print(f"{frame.stamp:.2f} s: {doing}", flush=True)  # your motors here
