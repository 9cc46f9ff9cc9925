#!/bin/sh
# Your own crystal, with your phonopy files. Here Cu3Au, which EMT of ASE labels in milliseconds.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/my_crystal/." .                 # POSCAR, phonopy_params.yaml, configs/experiment/mine.yaml
spkphonon generate --dry-run experiment=mine # describe the ensemble before computing labels
spktrain experiment=mine run.id=mine "$@"
