#!/bin/sh
# Attribution of the gap to bonds, by a model trained on phonon snapshots and by one trained on random
# snapshots. The labels are included in the package. 3 minutes on one core; smaller:
#     sh 4_bonds.sh 'data.structure.names=[Ag3SBr]' trainer.max_epochs=5
set -e
spktrain experiment=phonon_antiperovskite run.id=phonon "$@"
spktrain experiment=phonon_antiperovskite data/ensemble=random run.id=random "$@"
spkphonon attribute data/antiperovskite_pbesol_phonon.db --split runs/phonon/split.npz \
    --model runs/phonon --model runs/random --out bonds
