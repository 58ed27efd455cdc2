"""[build side] The zoo: ordinary clip networks in plain PyTorch, none of which knows that it will be streamed."""
