"""Training of the networks that ship with edgeco, from generated data alone."""
