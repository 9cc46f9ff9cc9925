#!/bin/sh
# One after the other. A job array does one in each job:
#   cd "$(sed -n "${SLURM_ARRAY_TASK_ID}p" todo.txt)" && no-such-cp2k -i label.inp -o label.out
cd "$(dirname "$0")" || exit
for folder in $(cat todo.txt); do
    (cd "$folder" && no-such-cp2k -i label.inp -o label.out > label.log 2>&1)
done
