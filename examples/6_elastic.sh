#!/bin/sh
# Elastic tensors: labels from strained copies, an output module trained on them, and second
# derivatives of the energy of the same model. Here Cu3Au, which EMT labels in milliseconds.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/my_crystal/." .
spktrain experiment=elastic run.id=elastic "$@"
python "$here/elastic.py" runs/elastic       # moduli of the crystal, and elastic.png
