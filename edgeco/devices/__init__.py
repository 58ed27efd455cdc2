"""[both] Devices: their figures as data, which one this is, what is installed on it, what a step would cost on it."""
