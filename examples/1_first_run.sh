#!/bin/sh
# The first run: structures, labels, training, test, attribution. 13 minutes on 4 cores; smaller:
#     sh 1_first_run.sh 'data.structure.names=[Ag3SBr]' 'data.ensemble.temperatures=[300]'
set -e
spktrain experiment=phonon_antiperovskite run.id=first "$@"
spkphonon report runs/first                  # the table again; figures are in runs/first/figures
