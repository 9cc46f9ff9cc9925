"""What the tests of this folder share."""

from schnetpack_phonon.phonons.instabilities import Instabilities

FREEZE = Instabilities("freeze")
