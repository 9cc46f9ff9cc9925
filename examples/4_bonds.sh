#!/bin/sh
# Which bonds carry the gap, in the eyes of a model that was trained on phonon snapshots and of one
# that was trained on random ones. Labels come with the package. 3 minutes of one core; smaller:
#     sh 4_bonds.sh 'data.structure.names=[Ag3SBr]' trainer.max_epochs=5
set -e
spktrain experiment=phonon_antiperovskite_dft run.id=phonon "$@"
spktrain experiment=phonon_antiperovskite_dft data/ensemble=random run.id=random "$@"
spkphonon attribute data/antiperovskite_pbesol_phonon.db --split runs/phonon/split.npz \
    --model runs/phonon --model runs/random --out bonds
