#!/bin/sh
# Elastic tensors: labels from strained copies, a head that learns them, and the second derivatives
# of the energy that the same model has learned. Here Cu3Au, which EMT labels in milliseconds.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/my_crystal/." .
spktrain experiment=elastic run.id=elastic "$@"
python "$here/elastic.py" runs/elastic       # moduli of the crystal, and elastic.png
