"""[build side] A traced clip network and what is known of each of its values."""
