"""Which channels live and die together: labels on every index of every axis of the traced network."""

from edgeco.graph.channels.families import Block, Channels, Family
from edgeco.graph.channels.rules import channel_rule
from edgeco.graph.channels.walk import find_channels

__all__ = ["Block", "Channels", "Family", "channel_rule", "find_channels"]
