"""How well a network tells labelled recordings: the clip network on windows, the step network at every frame.

``evaluate_bundle`` steps a bundle over data, as ``edgeco run`` would, and needs no PyTorch; ``evaluate_network`` holds
that against the clip network that it came from.
"""

from edgeco.evaluation.evaluate import evaluate_bundle, evaluate_network
from edgeco.evaluation.report import Confusion, EvalReport, Mode

__all__ = ["Confusion", "EvalReport", "Mode", "evaluate_bundle", "evaluate_network"]
