"""Neighbour lists: of one structure on the host (``host``), on the device under a changing geometry (``device``, with the
capacities of ``spec``), and the pairs within the cutoff one behind the other (``packed``)."""

from equipot.neighbors.cells import complete_cell
from equipot.neighbors.device import DeviceList, allocate, is_stale, to_graph, update
from equipot.neighbors.host import Edges, Slots, neighbor_list, slots
from equipot.neighbors.spec import ListSpec, grow, more_pairs, plan
from equipot.neighbors.staleness import may_miss_pairs

__all__ = [
    "DeviceList", "Edges", "ListSpec", "Slots", "allocate", "complete_cell", "grow", "is_stale",
    "may_miss_pairs", "more_pairs", "neighbor_list", "plan", "slots", "to_graph", "update",
]  # fmt: skip
