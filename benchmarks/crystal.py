"""A crystal of silicon of any size with the networks of W1 and W2: a bare evaluation, and a step of MD."""

from __future__ import annotations

from typing import Any

NETWORKS = {"W1": "W1-si216", "W2": "W2-si216"}
"""Work items that the networks belong to."""
MS_PER_DAY = 86400e3
NS = 1e-6
"""1 fs in ns."""


def crystal(network: str, atoms: int, steps: int, seconds: float) -> dict[str, Any]:
    """Energy and forces of silicon, and with ``steps`` also a step of MD; per atom in µs of wall time."""
    from benchmarks.cases import about, energy_forces, moving, of_step, silicon, untrained
    from benchmarks.measure import compiled, memory, timing
    from benchmarks.roofline import network_of

    structure = silicon(atoms)
    # So weak that the atoms, at 1 K, stay where a crystal would keep them.
    potential, graph = untrained(network_of(NETWORKS[network]), [structure], scale=1e-6)
    call, facts = compiled(energy_forces, potential, graph)
    out = {"network": network} | about(potential, graph) | {"evaluation": facts | timing(call, seconds)}
    out["evaluation_us_per_atom"] = 1e3 * out["evaluation"]["wall_ms"] / atoms
    if steps:
        with moving(potential, structure, steps) as chunk:
            out |= {"step": of_step(timing(chunk, seconds), steps), "steps_per_chunk": steps}
        out["step_us_per_atom"] = 1e3 * out["step"]["wall_ms"] / atoms
        out["ns_per_day_at_1_fs"] = NS * MS_PER_DAY / out["step"]["wall_ms"]
    return out | memory()
