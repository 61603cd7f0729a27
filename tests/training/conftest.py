import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import no_plots

__all__ = ["no_plots"]
