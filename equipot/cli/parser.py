"""The argument parser of ``equipot``; nothing heavy is imported here, so that --help is instant.

A command is two pieces. ``parser`` declares NAME with ``command`` and adds the arguments. The module ``equipot.cli.NAME``,
imported when the command runs, has ``execute(args: argparse.Namespace) -> int | None``: the exit code, None for 0. Errors are
raised, and ``cli.main`` turns an error into one line and an exit code. If a command with ``--resume`` (``add_resume``) is
interrupted, the command line that continues it is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot import __version__

EPILOG = """\
examples:
  equipot quickstart                               train, evaluate and run MD on bundled data
  equipot data train.xyz                           look for problems before training
  equipot train train.xyz --set training.max_minutes=60
  equipot train mace-molecules --set data.train=train.xyz --out runs/mine
  equipot train mace-molecules --set data.train=train.xyz --out runs/mine --resume
  equipot models                                   published potentials that can be used by name
  equipot models sevennet-0 --uncertainty          and that know how new a structure is to them
  equipot convert mace.model -o mace.eqp           take a checkpoint of another program
  equipot compress mace.eqp -o fast.eqp            the same potential, faster
  equipot guard mace.eqp -o safe.eqp               atoms repel at short distance, whatever it has learned
  equipot evaluate runs/mine/best.eqp test.xyz --json errors.json
  equipot uncertainty best.eqp --data train.xyz --calibrate valid.xyz --test test.xyz
  equipot train finetune --set model.from=sevennet-0 --set data.train=train.xyz
  equipot doctor runs/mine/best.eqp start.xyz      is this potential sound here?
  equipot phonons sevennet-0 crystal.cif           bands, densities of states, thermal properties
  equipot vibrations best.eqp molecule.xyz         normal modes, infrared spectrum, free energy
  equipot relax runs/mine/best.eqp structures.xyz --set cell=full
  equipot phonons runs/mine/best.eqp crystal.cif
  equipot neb runs/mine/best.eqp ends.xyz
  equipot md md-nvt-langevin --set model=runs/mine/best.eqp --set structure=start.xyz
  equipot transport runs/md-nvt-langevin           diffusion and averages with error bars

A config is a YAML file or the name of a recipe: quickstart, mace-molecules, nequip-molecules, mace-crystals,
mace-liquids, polar-molecules, delta-molecules, finetune; md-nve, md-nvt-langevin, md-nvt-csvr, md-nvt-nose-hoover,
md-npt-isotropic, md-npt-flexible; relax-pressure, phonons-crystal, neb-adatom.

exit codes: 0 done; 1 the run failed, or the doctor found a defect; 2 something to mend in the input; 130 interrupted,
143 terminated
"""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; ``args.module`` is the module of ``equipot.cli`` that runs the command."""
    top = argparse.ArgumentParser(
        prog="equipot",
        description="E(3)-equivariant interatomic potentials in JAX: from quantum-mechanical data to molecular dynamics.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"equipot {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    train = command(commands, "train", "fit a potential to reference data, as a config says or as suits the data")
    add_config(train, "training config: a YAML file, or the name of a recipe; or a file of reference data, or bundled:NAME")
    add_out(train, "folder of the run (default: runs/NAME)")
    add_resume(train)

    add_evaluate(commands)
    add_doctor(commands)

    md = command(commands, "md", "molecular dynamics with a potential, as a config says")
    add_config(md, "MD config: a YAML file, or the name of a recipe (md-...)")
    add_out(md, "folder of the run (default: runs/NAME-OF-CONFIG)")
    add_resume(md)

    add_convert(commands)
    add_compress(commands)
    add_guard(commands)
    add_uncertainty(commands)

    add_workflows(commands)
    add_analyses(commands)

    models = command(commands, "models", "the published potentials that can be used by name, such as sevennet-0")
    models.add_argument("name", metavar="NAME", nargs="?", help="one of them (default: all)")
    estimate = "give it, once and for all, an estimate of how new a structure is to it, by crystals and molecules made here"
    models.add_argument("--uncertainty", action="store_true", help=estimate)

    data = command(commands, "data", "look at reference data: what is in it, and what is wrong with it")
    data.add_argument("data", metavar="DATA", nargs="+", help="files that training reads, or bundled:NAME")
    add_set(data, "a key of the data section, such as keys.energy=REF_energy")

    add_hessian(commands)

    quickstart = command(commands, "quickstart", "train, evaluate and run MD on bundled data: a tour of some minutes")
    add_set(quickstart, "a key of configs/quickstart.yaml")
    add_out(quickstart, "folder of the runs (default: runs/quickstart)")
    add_resume(quickstart)
    return top


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command ``evaluate``."""
    evaluate = command(commands, "evaluate", "errors of a potential on labelled data")
    add_model(evaluate)
    evaluate.add_argument("data", metavar="DATA", help="a file that training reads too, or bundled:NAME")
    evaluate.add_argument("--json", metavar="FILE", type=Path, help="write the error table here (eV, Å)")
    add_out(evaluate, "write predictions (extxyz) and parity plots into this folder (default: none)")
    evaluate.add_argument("--dtype", choices=("float32", "float64"), help="precision (default: that of the file)")
    batch = "structures at a time, over all devices (default: as many as is useful and as memory allows)"
    evaluate.add_argument("--batch-size", metavar="N", type=int, help=batch)
    own = "class of the ASE calculator that a potential was trained to correct, if it is none that equipot knows by name"
    evaluate.add_argument("--method", metavar="package.module:Class", help=own)
    add_set(evaluate, "a key of the data section, such as keys.energy=REF_energy")


def add_doctor(commands: argparse._SubParsersAction) -> None:
    """Add the command ``doctor``."""
    doctor = command(commands, "doctor", "examine a potential: laws, neighbour lists, cutoff, pairs of atoms, dynamics")
    add_model(doctor)
    structure = "a file that ASE reads, its last frame or file@INDEX (default: a crystal and a molecule made here)"
    doctor.add_argument("structure", metavar="STRUCTURE", nargs="?", help=structure)
    add_out(doctor, "folder of the report: doctor.md, doctor.json, doctor.png (default: runs/doctor-MODEL)")
    doctor.add_argument("--json", metavar="FILE", type=Path, help="write the findings here as well")
    doctor.add_argument("--elements", metavar="Si,O", help="whose pairs are examined (default: all if few, or the structure's)")
    precision = "precision that it is meant to run in (default: that of the file)"
    doctor.add_argument("--dtype", choices=("float32", "float64"), help=precision)


def add_hessian(commands: argparse._SubParsersAction) -> None:
    """Add the command ``hessian``: not one below ``data``, whose arguments are files of any name."""
    hessian = command(commands, "hessian", "label frames with Hessians: differences of forces, or exact ones of a potential")
    hessian.add_argument("data", metavar="DATA", help="frames: a file that ASE reads, or bundled:NAME; labels are replaced")
    source = "gfn2-xtb, a method as data.subtract names it (emt, package.module:Class), or a potential: NAME.eqp or a name"
    hessian.add_argument("--calculator", metavar="NAME", required=True, help=source)
    file = "file to write, .xyz or .h5; the frames that are done are kept beside it until all are"
    hessian.add_argument("--out", metavar="FILE", type=Path, required=True, help=file)
    part = hessian.add_mutually_exclusive_group()
    part.add_argument("--columns", metavar="K", type=int, help="K random columns of each Hessian (default: all)")
    part.add_argument("--projections", metavar="K", type=int, help="products with K random directions instead")
    step = "largest displacement of an atom in differences of forces, in Å (default: 0.005)"
    hessian.add_argument("--step", metavar="X", type=float, help=step)
    add_set(hessian, "a further setting: seed=1, or an option of the calculator, such as options.accuracy=0.01")


def add_convert(commands: argparse._SubParsersAction) -> None:
    """Add the command ``convert``."""
    convert = command(commands, "convert", "turn a checkpoint of SevenNet, Nequix, MACE or NequIP into a potential of equipot")
    source = "a checkpoint (.pth, .nqx, .model, .ckpt, .nequip.zip), or a name of `equipot models`"
    convert.add_argument("source", metavar="SOURCE", help=source)
    convert.add_argument("-o", "--output", metavar="NAME.eqp", type=Path, required=True, help="the file to write")
    head = "the level of theory, where the checkpoint has several (default: all, if they share a body)"
    convert.add_argument("--head", help=head)
    reference = "values of the source program to compare with: JSON as the scripts in benchmarks/parity write it"
    convert.add_argument("--reference", metavar="FILE", type=Path, help=reference)


def add_compress(commands: argparse._SubParsersAction) -> None:
    """Add the command ``compress``."""
    compress = command(commands, "compress", "tabulate the radial networks of a potential: nearly the same, and faster")
    add_model(compress)
    compress.add_argument("-o", "--output", metavar="NAME.eqp", type=Path, required=True, help="the file to write")
    grid = "intervals of the splines between zero and the cutoff (default: as many as single precision can tell)"
    compress.add_argument("--intervals", metavar="N", type=int, help=grid)
    told = "frames on which it is compared with the original (default: a crystal and a molecule made here)"
    compress.add_argument("--structures", metavar="FILE", help=told)


def add_guard(commands: argparse._SubParsersAction) -> None:
    """Add the command ``guard``."""
    guard = command(commands, "guard", "add a wall to a potential, inside of which atoms repel whatever it has learned")
    add_model(guard)
    guard.add_argument("-o", "--output", metavar="NAME.eqp", type=Path, help="the file to write (default: MODEL-guarded.eqp)")
    share = "inner radius over the sum of the covalent radii (default: below that of any bond)"
    guard.add_argument("--share", metavar="X", type=float, help=share)
    guard.add_argument("--width", metavar="X", type=float, help="width of the transition over the inner radius")
    seen = "frames, such as the training data, whose distances the wall must leave as they are"
    guard.add_argument("--structures", metavar="FILE", help=seen)


def add_uncertainty(commands: argparse._SubParsersAction) -> None:
    """Add the command ``uncertainty``."""
    sub = command(commands, "uncertainty", "give a potential an estimate of its uncertainty: deviations of energies and forces")
    add_model(sub)
    others = "other members of a committee: potentials of the same level of theory that were trained independently"
    sub.add_argument("--committee", metavar="FILE", nargs="+", default=[], help=others)
    known = "structures that the model knows, such as its training set; only methods that learn from errors use labels"
    sub.add_argument("--data", metavar="FILE", help=known)
    sub.add_argument("--prototypes", action="store_true", help="instead of data: crystals and molecules that are made here")
    sub.add_argument("--calibrate", metavar="FILE", help="labelled frames that were not trained on, 100 or more")
    sub.add_argument("--test", metavar="FILE", help="further labelled frames, on which the estimate is compared with errors")
    sub.add_argument("-o", "--output", metavar="NAME.eqp", type=Path, help="the file to write (default: MODEL-uncertainty.eqp)")
    add_out(sub, "write table and plots of the comparison into this folder (default: none)")
    sub.add_argument("--dtype", choices=("float32", "float64"), help="precision (default: that of the file)")
    sub.add_argument("--batch-size", metavar="N", type=int, help="structures at a time (default: as many as is useful)")
    own = "class of the ASE calculator that a potential was trained to correct, if it is none that equipot knows by name"
    sub.add_argument("--method", metavar="package.module:Class", help=own)
    add_set(sub, "a setting of the estimate, such as method.samples=16 or method.novelty.kind=Nearest")


WORKFLOWS: dict[str, tuple[str, str]] = {
    "relax": ("structures to their minima: positions, and cells under a pressure or stress", "all its frames"),
    "bulk": (
        "crystals: equation of state, elastic tensor, strength, order of polymorphs",
        "one crystal, or polymorphs to rank",
    ),
    "neb": ("a path of least energy: barrier, saddle point by exact Hessians, rate", "its two ends, or a whole first path"),
    "phonons": ("bands, density of states and thermal properties of a crystal", "one crystal"),
    "vibrations": ("normal modes, infrared intensities and free energy of a molecule", "one molecule, surface or wire"),
    "constitutive": ("the hyperelastic law of a crystal: a network of invariants of C, for finite elements", "one crystal"),
}
"""What each command of ``equipot.workflows`` does, and the structures that it takes."""


ANALYSES: dict[str, tuple[str, bool]] = {
    "spectra": ("spectra from a trajectory: vibrational density of states, infrared absorption", False),
    "transport": (
        "averages, radial distributions and diffusion from a trajectory; with a model, conductivity, viscosity",
        True,
    ),
}
"""What each command does that streams a trajectory, and whether it can use a model. A table of its own: such a command reads no
list of structures and may have no potential, while every command of ``WORKFLOWS`` relies on both."""


def add_analyses(commands: argparse._SubParsersAction) -> None:
    """Add the commands that analyse a trajectory, all with the same arguments but for the model."""
    for name, (what, takes_model) in ANALYSES.items():
        sub = command(commands, name, what)
        sub.set_defaults(module="analysis", workflow=name, model=None)
        trajectory = "folder of a run of `equipot md`, a trajectory of it, or one that ASE reads, FILE or FILE@A:B"
        more = "; or, with --set run.steps=..., a structure to start from" if takes_model else ""
        sub.add_argument("trajectory", metavar="TRAJECTORY", help=trajectory + more)
        if takes_model:
            potential = "a potential, for the heat flux along the trajectory: NAME.eqp, or a name of `equipot models`"
            sub.add_argument("--model", metavar="MODEL", help=potential)
            sub.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="precision (default: float64)")
        add_settings(sub, name)
        add_out(sub, f"folder of the results: {name}.json, {name}.html and figures (default: runs/{name}-TRAJECTORY)")
        add_resume(sub)


def add_settings(sub: argparse.ArgumentParser, name: str) -> None:
    """Add the options --config and --set."""
    settings = f"a YAML file with settings, or the name of a recipe ({name}-...)"
    sub.add_argument("--config", metavar="CONFIG", type=Path, help=settings)
    add_set(sub, "a setting, such as those of the config (repeatable; the value is YAML)")


def add_workflows(commands: argparse._SubParsersAction) -> None:
    """Add the commands that compute something of a structure, all with the same arguments."""
    for name, (what, structures) in WORKFLOWS.items():
        sub = command(commands, name, what)
        sub.set_defaults(module="workflow", workflow=name)
        add_model(sub)
        sub.add_argument("structure", metavar="STRUCTURE", help=f"a file that ASE reads, or file@INDEX: {structures}")
        add_settings(sub, name)
        add_out(sub, f"folder of the results: {name}.json, {name}.html and figures (default: runs/{name}-STRUCTURE)")
        add_resume(sub)
        precision = "precision (default: float64, since derivatives of forces and small differences are wanted)"
        sub.add_argument("--dtype", choices=("float32", "float64"), default="float64", help=precision)


def command(commands: argparse._SubParsersAction, name: str, what: str) -> argparse.ArgumentParser:
    """Add a command with its description and the option --debug."""
    sub = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    sub.add_argument("--debug", action="store_true", help="show the traceback of an error (also: EQUIPOT_DEBUG=1)")
    sub.set_defaults(module=name)
    return sub


def add_model(sub: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    sub.add_argument("model", metavar="MODEL", help="a potential: NAME.eqp, NAME.eqp@HEAD, or a name of `equipot models`")


def add_config(sub: argparse.ArgumentParser, what: str) -> None:
    """Add the argument CONFIG and the option --set."""
    sub.add_argument("config", metavar="CONFIG", type=Path, help=what)
    add_set(sub, "any key of the config, such as training.epochs=100 (repeatable; the value is YAML)")


def add_set(sub: argparse.ArgumentParser, what: str) -> None:
    """Add the option --set."""
    sub.add_argument("--set", metavar="KEY=VALUE", dest="overrides", action="append", default=[], help=what)


def add_out(sub: argparse.ArgumentParser, what: str) -> None:
    """Add the option --out."""
    sub.add_argument("--out", metavar="DIR", type=Path, help=what)


def add_resume(sub: argparse.ArgumentParser) -> None:
    """Add the option --resume."""
    sub.add_argument("--resume", action="store_true", help="continue the run in this folder where it stopped")
