import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import cache, compile_once, no_plots

__all__ = ["cache", "compile_once", "no_plots"]
