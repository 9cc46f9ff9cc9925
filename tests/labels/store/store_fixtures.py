"""What the tests of this folder share."""

HEADER = b'{"format":"schnetpack_phonon labels","version":1}\n'
