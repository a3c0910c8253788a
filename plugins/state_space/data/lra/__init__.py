"""The six tasks of the Long Range Arena (Tay et al. 2021, arXiv 2011.04006)."""

from plugins.state_space.data.lra.image import GreyCIFARData
from plugins.state_space.data.lra.listops import ListOpsData, generate_listops
from plugins.state_space.data.lra.pathfinder import PATHFINDER_32, PATHX, PathfinderData, Recipe, draw_pathfinder
from plugins.state_space.data.lra.retrieval import RetrievalData
from plugins.state_space.data.lra.text import TextData

__all__ = [
    "PATHFINDER_32",
    "PATHX",
    "GreyCIFARData",
    "ListOpsData",
    "PathfinderData",
    "Recipe",
    "RetrievalData",
    "TextData",
    "draw_pathfinder",
    "generate_listops",
]
