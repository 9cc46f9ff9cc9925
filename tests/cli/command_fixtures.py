"""The entry point of spkphonon, called in this process."""

import sys

from schnetpack_phonon.cli.commands import main


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spkphonon", *map(str, arguments)])
    main()
