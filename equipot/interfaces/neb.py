"""ASE's nudged elastic band with all images evaluated in one batch."""

from __future__ import annotations

import ase.mep.neb
import numpy as np
from ase.build import minimize_rotation_and_translation

from equipot.interfaces.ase import calculate_together

__all__ = ["NEB"]


class NEB(ase.mep.neb.NEB):
    """``ase.mep.NEB`` that evaluates all images of a step in one batch; options and methods are those of ASE.

    >>> images = [first, *(first.copy() for _ in range(7)), last]
    >>> for image in images:
    ...     image.calc = potential.calculator()
    >>> band = NEB(images, climb=True, method="improvedtangent")
    >>> band.interpolate("idpp")
    >>> FIRE(band).run(fmax=0.05)

    Images with a calculator of another class, such as ends with known energies, use that calculator. As in ASE each image needs
    its own calculator, unless ``allow_shared_calculator`` is set: then images are calculated one after the other.
    """

    def get_forces(self) -> np.ndarray:
        """Compute the forces on the inner images, (inner images x atoms, 3), eV/Å."""
        if self.allow_shared_calculator or self.parallel:
            return super().get_forces()
        images, align = self.images, self.remove_rotation_and_translation
        if align:
            # ASE does this first; done once more after the batch it would move the images by a rounding error.
            for before, image in zip(images, images[1:], strict=False):
                minimize_rotation_and_translation(before, image)
        calculate_together(images[1:-1] if self.method == "aseneb" else images)
        self.remove_rotation_and_translation = False
        try:
            return super().get_forces()
        finally:
            self.remove_rotation_and_translation = align
