"""The model: what an application consists of and where each tier is to run. Pure: no I/O but `parse_file`."""

from outgrow.topology.model import STAGES, Topology
from outgrow.topology.parse import parse, parse_file

__all__ = ["STAGES", "Topology", "parse", "parse_file"]
