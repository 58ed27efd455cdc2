"""[build side] Clip graph to step program: one rule per operator family, histories, the torch reference runner."""
