"""Frames whose self-consistent field did not converge are left out, counted and named, unless they are asked for."""

import numpy as np
import pytest

from equipot.data.config import DataConfig, Reading
from equipot.data.converged import OUTPUTS as PROGRAMS
from equipot.data.converged import unconverged
from equipot.data.read import gather, load_data, read
from equipot.units import hartree, rydberg


def outcar(steps, last_line="aborting loop because EDIFF is reached"):
    """An OUTCAR of two hydrogen atoms; ``steps`` says of each ionic step how many electronic cycles it took and its energy."""
    text = 2 * " POTCAR:    PAW_PBE H 15Jun2001\n" + "   ions per type =               2\n   NELM   =      6;\n"
    for k, (cycles, energy) in enumerate(steps, 1):
        for cycle in range(1, cycles + 1):
            text += f"---------------------- Iteration {k:6d}({cycle:4d})  ----------------------\n"
        text += f"------------------------ {last_line} ------------------\n" if cycles < 6 else ""
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += "".join(f" {row}  0.1 0.0 0.0\n" for row in ("8.0 0.0 0.0", "0.0 8.0 0.0", "0.0 0.0 8.0"))
        text += f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 80}\n"
        text += f" 0.0 0.0 0.0  {k * 0.1:.3f} 0.0 0.0\n 0.0 0.0 0.75 -{k * 0.1:.3f} 0.0 0.0\n {'-' * 80}\n"
        text += f"  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 40}\n  free  energy   TOTEN  =  {energy:.6f} eV\n\n"
        text += f"  energy  without entropy=  {energy:.6f}  energy(sigma->0) =  {energy:.6f}\n"
    return text


def vasprun(steps):
    """A vasprun.xml; ``steps`` holds the energies of the electronic cycles of each ionic step."""
    vectors = "".join(f"<v>{row}</v>" for row in ("8 0 0", "0 8 0", "0 0 8"))
    positions = '<varray name="positions"><v>0 0 0</v><v>0 0 0.1</v></varray>'
    structure = f'<crystal><varray name="basis">{vectors}</varray></crystal>{positions}'
    energy = lambda e: f'<energy><i name="e_fr_energy">{e:.8f}</i><i name="e_0_energy">{e:.8f}</i></energy>'
    text = '<?xml version="1.0"?><modeling><kpoints><varray name="kpointlist"><v>0 0 0</v></varray>'
    text += '<varray name="weights"><v>1.0</v></varray></kpoints>'
    text += '<parameters><i type="int" name="NELM">4</i><i name="EDIFF">0.00010000</i></parameters>'
    text += '<atominfo><array name="atoms"><set><rc><c>H </c></rc><rc><c>H </c></rc></set></array></atominfo>'
    text += f'<structure name="initialpos">{structure}</structure>'
    for energies in steps:
        cycles = "".join(f"<scstep>{energy(e)}</scstep>" for e in energies)
        text += f"<calculation>{cycles}<structure>{structure}</structure>"
        text += f'<varray name="forces"><v>0.1 0 0</v><v>-0.1 0 0</v></varray>{energy(energies[-1])}</calculation>'
    return text + "</modeling>"


def gaussian(steps):
    """A Gaussian output; ``steps`` says of each geometry whether it converged, and its energy."""
    text = " Entering Gaussian System, Link 0=g16\n"
    for k, (converged, energy) in enumerate(steps):
        text += "                          Input orientation:\n" + " ---\n Center Atomic\n Number\n ---\n"
        text += f"   1  1  0  0.0 0.0 0.0\n   2  1  0  0.0 0.0 {0.7 + 0.01 * k}\n ---\n"
        text += "" if converged else " >>>>>>>>>> Convergence criterion not met.\n"
        text += f" SCF Done:  E(RPBE-PBE) =  {energy:.9f}     A.U. after   12 cycles\n"
        text += "" if converged else " Convergence failure -- run terminated.\n"
    return text


def orca(steps):
    """An ORCA output; ``steps`` says of each geometry whether it converged, and its energy."""
    text = "                                 * O   R   C   A *\n"
    for k, (converged, energy) in enumerate(steps):
        text += "Number of atoms                             ...      2\n"
        text += f"CARTESIAN COORDINATES (ANGSTROEM)\n{'-' * 30}\n  H 0.0 0.0 0.0\n  H 0.0 0.0 {0.7 + 0.01 * k}\n\n"
        text += "" if converged else "  SCF NOT CONVERGED AFTER 125 CYCLES\n"
        text += f"FINAL SINGLE POINT ENERGY   {energy:.9f}{'' if converged else ' (Wavefunction not fully converged!)'}\n"
        text += "ORCA SCF GRADIENT CALCULATION\nCARTESIAN GRADIENT\n------\n\n"
        text += "   1   H   :    0.1 0.0 0.0\n   2   H   :   -0.1 0.0 0.0\n\n"
        text += "             *    ORCA GEOMETRY RELAXATION STEP   *\n" if k < len(steps) - 1 else "ORCA TERMINATED NORMALLY\n"
    return text


def espresso(steps):
    """A Quantum ESPRESSO output of dynamics that goes on after a failure."""
    text = "     Program PWSCF v.7.2 starts\n"
    text += "     lattice parameter (alat)  =      10.0000  a.u.\n     number of atoms/cell      =            2\n"
    text += "     number of atomic types    =            1\n     celldm(1)=  10.000000\n"
    text += "     crystal axes: (cart. coord. in units of alat)\n"
    text += "".join(f"               a({k + 1}) = ( {k == 0:.1f} {k == 1:.1f} {k == 2:.1f} )\n" for k in range(3))
    text += "     atomic species   valence    mass     pseudopotential\n        H  1.00  1.00784  H( 1.00)\n\n"
    text += "     site n.     atom                  positions (alat units)\n"
    text += (
        "".join(f"         {k + 1}           H   tau(   {k + 1}) = (   0.0   0.0   {0.15 * k}  )\n" for k in range(2)) + "\n"
    )
    for k, (converged, energy) in enumerate(steps):
        if k:
            text += f"ATOMIC_POSITIONS (angstrom)\nH 0.0 0.0 0.0\nH 0.0 0.0 {0.7 + 0.01 * k}\n\n"
        text += f"!    total energy              =  {energy:.8f} Ry\n\n"
        text += "     convergence has been achieved in  9 iterations\n" if converged else ""
        text += "" if converged else "     convergence NOT achieved after 100 iterations: stopping\n"
    return text


HA, RY = hartree, rydberg
OUTPUTS = {
    "OUTCAR": (outcar([(4, -6.1), (6, -6.2), (3, -6.3)]), [-6.1, -6.3], "frame 1"),
    "vasprun.xml": (
        vasprun([[-5.0, -6.1], [-5.0, -6.3, -6.0, -6.2], [-5.0, -6.0, -6.3, -6.30001]]), [-6.1, -6.30001], "frame 1",
    ),
    "run.log": (gaussian([(True, -1.1), (False, -1.2), (True, -1.3)]), [-1.1 * HA, -1.3 * HA], "frame 1"),
    "run.orca": (orca([(True, -1.1), (False, -1.2), (True, -1.3)]), [-1.1 * HA, -1.3 * HA], "frame 1"),
    "md.pwo": (espresso([(True, -2.1), (True, -2.2), (False, -2.3)]), [-2.1 * RY, -2.2 * RY], "frame 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_frames_that_did_not_converge_are_left_out_counted_and_named(tmp_path, name):
    text, energies, which = OUTPUTS[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.warns(UserWarning, match=rf"{name}, {which}: the SCF did not converge, so the frame is left out; calculate it"):
        frames = read(path)
    np.testing.assert_allclose([s.energy for s in frames], energies, rtol=1e-6)
    assert len(read(path, unconverged="keep")) == 3
    found, dropped = gather(str(path), Reading())
    assert len(found) == 2 and [problem.where for problem in dropped] == [f"{path}, {which}"]
    assert len(gather(str(path), Reading(unconverged="keep"))[0]) == 3


def test_vasp_6_says_it_in_words(tmp_path):
    path = tmp_path / "OUTCAR"
    path.write_text(
        outcar([(3, -6.1)]) + outcar([(3, -6.2)], "aborting loop EDIFF was not reached (unconverged)").partition("6;\n")[2]
    )
    with pytest.warns(UserWarning, match="frame 1: the SCF did not converge"):
        assert [s.energy for s in read(path)] == [-6.1]


def test_an_output_of_which_nothing_converged(tmp_path):
    path = tmp_path / "run.log"
    path.write_text(gaussian([(False, -1.1)]))
    with pytest.raises(ValueError, match="run.log: the SCF converged in none of its 1 frames; calculate it again, or set"):
        read(path)


def test_a_failure_that_belongs_to_an_unknown_frame(tmp_path, monkeypatch):
    """Most outputs of several frames do not tell: they are refused, unless all frames are to be kept."""
    path = tmp_path / "nwchem.out"
    path.write_text(" Calculation failed to converge\n")
    assert unconverged(path, "nwchem-out", [None]) == [True]
    assert unconverged(path, "nwchem-out", [None, None]) == [None, None]
    # Written as an output that is short to make up, and read as one that does not tell.
    path = tmp_path / "OUTCAR"
    path.write_text(outcar([(3, -6.5), (6, -6.6)]))
    monkeypatch.setitem(PROGRAMS, "vasp-out", lambda text, frames: None)
    with pytest.raises(ValueError, match="OUTCAR: says that an SCF did not converge, but not in which of its 2 frames"):
        read(path)
    with pytest.raises(ValueError, match="or set unconverged .data.unconverged in training. to keep"):
        gather(str(path), Reading())
    assert len(read(path, unconverged="keep")) == len(gather(str(path), Reading(unconverged="keep"))[0]) == 2


@pytest.mark.parametrize("flag", ["scf_converged=F", "SCF_converged=False", "SCF_CONVERGED=0"])
def test_a_flag_in_extended_xyz_counts_and_stands_in_the_report(crystals, write, tmp_path, flag):
    path = write(crystals)
    lines = path.read_text().splitlines()
    lines[1 + 18 * 4] += f" {flag}"
    path.write_text("\n".join(lines) + "\n")
    data = load_data(DataConfig(str(path), valid=2), 0)
    assert len(data.train) + len(data.valid) == 11
    assert [line for line in data.report.warnings if "data.xyz, frame 4: the SCF did not converge" in line]
    assert len(load_data(DataConfig(str(path), valid=2, unconverged="keep"), 0).train) == 10


STEP = (
    "ATOMIC_POSITIONS (angstrom)\nH 0.0 0.0 0.0\nH 0.0 0.0 {place}\n\n"
    "     iteration #100     ecut=    30.00 Ry     beta= 0.70\n"
)


def test_a_failed_step_of_espresso_without_an_energy_leaves_the_one_before(tmp_path):
    """By default pw.x stops at a step that fails, and writes no line of its energy."""
    text = espresso([(True, -2.1), (True, -2.2)]) + STEP.format(place=0.72)
    text += "     total energy              =      -2.30000000 Ry\n     estimated scf accuracy    <       0.51 Ry\n\n"
    (tmp_path / "md.pwo").write_text(text + "     convergence NOT achieved after 100 iterations: stopping\n")
    assert [s.energy for s in read(tmp_path / "md.pwo")] == pytest.approx([-2.1 * RY, -2.2 * RY], rel=1e-6)


def test_a_step_of_espresso_that_need_not_converge_is_known_by_its_accuracy(tmp_path):
    text = espresso([(True, -2.1)]).replace(
        "     number of atomic types", "     convergence threshold     =      1.0E-08\n     number of atomic types"
    )
    for place, energy, accuracy in ((0.72, -2.05, "0.51"), (0.73, -2.21, "4.1E-09")):
        text += f"{STEP.format(place=place)}!    total energy              =  {energy:.8f} Ry\n"
        text += (
            f"     estimated scf accuracy    <       {accuracy} Ry\n\n     convergence has been achieved in 100 iterations\n"
        )
    (tmp_path / "md.pwo").write_text(text)
    with pytest.warns(UserWarning, match="did not converge"):
        found = read(tmp_path / "md.pwo")
    assert [s.energy for s in found] == pytest.approx([-2.1 * RY, -2.21 * RY], rel=1e-6)
