"""What neural networks on a radius graph have in common: elements, radial features, heads and a repulsion of nuclei."""

from __future__ import annotations

from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from equipot.graph import HEADS, Graph, choose_head
from equipot.nn.edge_features import Edges, RadialFeatures, pairs_within
from equipot.nn.electrons import NUMBERS, Electrons, SpreadElectrons
from equipot.nn.features import Features, add, check_elements, scalars, species_index
from equipot.nn.radial import Radial, covalent_radii
from equipot.nn.readout import Embedding, ReadOut, check_heads
from equipot.physics.zbl import ZBL
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["Network"]


class Network(Term):
    """A neural network that embeds species and distances and reads invariant features out as energies of atoms.

    The compact ``__call__`` of a subclass begins with ``embed`` and ``embed_species``, calls ``feel_electrons`` after the first
    interaction and ends with ``answer``; what lies between is the subclass's own. ``models/mace.py`` and ``models/nequip.py``
    are examples.
    """

    elements: tuple[int, ...] = ()
    """Atomic numbers the network knows; taken from the data where left out."""
    radial: Radial = Radial()
    """Radial features of the distances."""
    heads: tuple[str, ...] = ()
    """Names of levels of theory that share everything but the readouts."""
    repulsion: ZBL | None = None
    """Repulsion of nuclei at short distance, added to the energy of the network; scale and shift do not act on it."""
    electrons: Electrons | None = None
    """Spreading of total charge and unpaired electrons over the atoms; None for a network that sees neither."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elements(self.elements)
        check_heads(self.heads)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Those of the field ``heads``."""
        return tuple(self.heads)

    @property
    def can_have_heads(self) -> bool:
        """True: a network has one readout for each head."""
        return True

    def with_heads(self, names: tuple[str, ...]) -> Network:
        return self.clone(heads=tuple(names))

    def with_last_layer(self, params: Any, change: Float[np.ndarray, " features"]) -> Any:
        """Add to the weights by which the features of the answer make the energy.

        Args:
            params: Parameters of this network, with one head.
            change: Change of the weight of each feature, see ``Atomic.features``.

        Raises:
            ValueError: a network that does not say which parameters these are.
        """
        raise ValueError(f"{type(self).__name__} does not say which of its parameters are the last layer's")

    @property
    def averaging_cutoff(self) -> float | None:
        return self.cutoff

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # of an object, where others have it of a class
        return () if self.electrons is None else ("charge", "spin")

    @property
    def radial_weights_see_species(self) -> bool:
        """Whether the radial weights of a pair depend on both species, besides the distance."""
        return self.radial.transform is not None

    def embed(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Edges:
        """Look up the species of each atom and select the pairs within the cutoff, with what the radial features need.

        Args:
            vectors: from each atom to the neighbours in its slots, Å.

        Raises:
            ValueError: the network has no elements.
        """
        if not self.elements:
            raise ValueError(
                "the model has no elements; give them in the config (model.elements) or train on data that has some"
            )
        cutoff = cutoff_of(self)
        species, known = species_index(graph.numbers, self.elements)
        pairs, vectors, r = pairs_within(graph, vectors, cutoff)
        known = jnp.where(pairs.overflow, jnp.nan, known)
        radii = None
        if self.radial.transform is not None or self.repulsion is not None:
            table = self.variable("constants", "radii", lambda: jnp.asarray(covalent_radii(self.elements))).value
            own = jnp.asarray(table, vectors.dtype)[species]
            radii = pairs.from_centers(own) + pairs.from_neighbors(own)
            radii = jnp.where(pairs.slots < 0, jnp.asarray(1.0, radii.dtype), radii)
        learned = self.radial.basis.learned(self, vectors.dtype)
        return Edges(species, known, pairs, vectors, r, radii, RadialFeatures(self.radial, cutoff), learned)

    def embed_species(self, width: int, species: Int[Array, " atoms"]) -> tuple[Features, Features]:
        """Return a learned vector of ``width`` scalars for each atom by its species, and the table of vectors by species."""
        table = {e3nn.Irrep("0e"): Embedding(width, len(self.elements), name="embedding")()[:, None]}
        return {ir: value[species] for ir, value in table.items()}, table

    def feel_electrons(self, x: Features, edges: Edges, graph: Graph) -> tuple[Features, Float[Array, "atoms 3"] | None]:
        """Spread charge and unpaired electrons over the atoms; return the features with the change by these, and the shares.

        Neutral singlets keep their features. Without ``electrons``, features are returned as they are, and None.
        """
        if self.electrons is None:
            return x, None
        spread = SpreadElectrons(self.electrons.width, len(self.elements), name="electrons")
        change, shares = spread(scalars(x), edges.species, graph)
        return add(x, {e3nn.Irrep("0e"): change[:, None]}), shares

    def answer(
        self,
        readout: type[nn.Module],
        features: Any,
        edges: Edges,
        graph: Graph,
        latent: Float[Array, "atoms features"],
        shares: Float[Array, "atoms 3"] | None = None,
        **fields: Any,
    ) -> Atomic:
        """Read out the energy of each atom (eV) and add the repulsion; NaN for an element that the network does not know.

        With ``shares`` of ``feel_electrons``, the energy includes the constant ``electron_shift`` for each unit of positive
        charge, of negative charge, and for each unpaired electron, as ``shift`` does for each atom.

        ``readout(count=..., **fields)`` is one head: a module that maps ``features`` and the species [atoms] to the result of
        ``nn.readout.scaled``. Variables of a single head stand beside those of the network. Those of several
        stand in one scope, ``graph.HEADS``, each stacked along a leading axis in the order of ``heads``.

        Raises:
            ValueError: there are several heads, but the graph does not say which; or the network has ``electrons``, but its
                class does not use them.
        """
        read = self._read_out(readout, features, edges.species, graph, {**fields, "count": len(self.elements)})
        energy = read.energy
        if self.repulsion is not None:
            assert edges.radii is not None, "embed finds them for a repulsion"
            energy += self.repulsion.repel(edges.pairs, edges.distances, graph.numbers, edges.radii, cutoff_of(self))
        if self.electrons is not None:
            if shares is None:
                raise ValueError(
                    f"{type(self).__name__} does not use electrons (it never calls feel_electrons); leave them out"
                )
            shift = self.variable("constants", "electron_shift", lambda: jnp.zeros(NUMBERS)).value
            energy += shares @ jnp.asarray(shift, energy.dtype)
        return Atomic(energy * edges.known, latent=latent, features=read.features)

    def _read_out(
        self, readout: type[nn.Module], features: Any, species: Int[Array, " atoms"], graph: Graph, fields: dict[str, Any]
    ) -> ReadOut:
        if not self.heads:
            single = readout(**fields)
            nn.share_scope(self, single)
            return single(features, species)
        if graph.head is None:
            raise ValueError(choose_head(self.heads))
        axes: dict[Any, Any] = {"params": 0, "constants": 0}
        heads = nn.vmap(readout, in_axes=None, axis_size=len(self.heads), variable_axes=axes, split_rngs={"params": True})
        read: ReadOut = heads(**fields, name=HEADS)(features, species)
        head = graph.head[graph.node_graph]
        return jax.tree.map(lambda x: jnp.take_along_axis(x, head.reshape(1, -1, *[1] * (x.ndim - 2)), axis=0)[0], read)
