#!/bin/sh
# DFT labels from a cluster that does not have this package. Here the "cluster" is one line with EMT.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/my_crystal/." .
spkphonon export calculations experiment=mine "$@"
for folder in calculations/*/; do            # on the cluster: your code, any output that ASE reads
    python -c "
import sys
from ase.calculators.emt import EMT
from ase.io import read, write
atoms = read(sys.argv[1] + 'structure.extxyz')
atoms.calc = EMT()
atoms.get_potential_energy(), atoms.get_stress()
write(sys.argv[1] + 'result.extxyz', atoms)" "$folder"
done
spkphonon collect calculations --results=result.extxyz
spkphonon generate experiment=mine "$@"      # makes the database; all labels are there
spkphonon card data/Cu3Au_phonon.db          # describes it
spktrain experiment=mine run.id=cluster "$@"
