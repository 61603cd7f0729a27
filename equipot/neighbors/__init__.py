"""Neighbour lists.

host        all pairs of one structure, in numpy, through vesin
device      a list inside compiled functions, for a changing geometry, with the fixed capacities of ``spec``
staleness   bound on the motion of atoms and cell for which a list remains valid
packed      pairs of a graph within the cutoff, stored contiguously, the input of models
cells       completion, inverse, heights and checks of cells
"""

from equipot.neighbors.cells import complete_cell
from equipot.neighbors.device import DeviceList, allocate, is_stale, to_graph, update
from equipot.neighbors.host import Edges, Slots, neighbor_list, slots
from equipot.neighbors.spec import ListSpec, grow, more_pairs, plan
from equipot.neighbors.staleness import ROUNDING, may_miss_pairs, still_complete

__all__ = [
    "allocate",
    "complete_cell",
    "DeviceList",
    "Edges",
    "grow",
    "is_stale",
    "ListSpec",
    "may_miss_pairs",
    "more_pairs",
    "neighbor_list",
    "plan",
    "ROUNDING",
    "Slots",
    "slots",
    "still_complete",
    "to_graph",
    "update",
]
