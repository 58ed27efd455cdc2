"""Training of the networks that ship with edgeco, from recordings and from generated clips."""
