#!/bin/sh
# The first run: structures, their labels (those of the package), training, test, attribution. Smaller:
#     sh 1_first_run.sh 'data.structure.names=[Ag3SBr]' trainer.max_epochs=20
set -e
spktrain experiment=phonon_antiperovskite run.id=first "$@"
spkphonon report runs/first                  # the table again; figures are in runs/first/figures
