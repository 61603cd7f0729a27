"""Terms whose form is known: pair potentials, charges, dispersion, walls, and potentials in closed form.

>>> from equipot.physics import StillingerWeber, closed_form
>>> potential = closed_form(StillingerWeber(), "Si")
"""

from equipot.physics.closed_form import closed_form
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.morse import Morse
from equipot.physics.stillinger_weber import StillingerWeber

__all__ = ["LennardJones", "Morse", "StillingerWeber", "closed_form"]
