"""Pages: results as one HTML file that holds its tables, plots, pictures and structures itself, to be sent or kept.

A page opens without a network and without a program beside it; ``write_page`` makes it of blocks.
"""

from equipot.pages.block import Block
from equipot.pages.blocks import Listing, Picture, Table, Text
from equipot.pages.page import try_to_write_page, write_page
from equipot.pages.plot import Curve, Plot
from equipot.pages.viewer import Frame, Viewer

__all__ = [
    "Block", "Curve", "Frame", "Listing", "Picture", "Plot", "Table", "Text", "Viewer", "try_to_write_page", "write_page",
]  # fmt: skip
