#!/bin/sh
# Gap against temperature, with the model of 1_first_run.sh in the same folder.
set -e
spkphonon thermal runs/first "$@"            # thermal/index.html
