"""Calibration: what range every tensor and history of a step network takes over real streams."""
