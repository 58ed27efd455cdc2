"""A robot that acts on what it has seen: python robot.py NET.edgeco SOURCE"""

import sys

import edgeco

model = edgeco.load(sys.argv[1])
pacer = edgeco.Pacer(model.manifest.timeline.fps, threshold=0.5)  # the source's rate need not be the network's
with model.stream() as stream, edgeco.open_source(sys.argv[2]) as source:
    doing = None
    for frame in source:
        pace = pacer.decide(frame.stamp)
        if pace.reset:
            stream.reset()  # so much is missing that the past is another scene's
        result = stream.step(frame) if pace.times else None
        if result and result.valid and (best := result.top(1)[0]).score > 0.6 and best.label != doing:
            doing = best.label
            print(f"{frame.stamp:.2f} s: {doing}", flush=True)  # your motors here
