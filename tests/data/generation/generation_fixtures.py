"""What the tests of this folder share."""

from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ALLOYS

UNRELAXED = Antiperovskites(["Cu3PdAu"], relax=False, lattice_constants=ALLOYS)
