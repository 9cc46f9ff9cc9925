#!/bin/sh
# My own crystal, with my phonopy files. Here Cu3Au, which ASE's EMT labels in milliseconds.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/my_crystal/." .                 # POSCAR, phonopy_params.yaml, configs/experiment/mine.yaml
spkphonon generate --dry-run experiment=mine # look at the ensemble before labels are paid for
spktrain experiment=mine run.id=mine "$@"
