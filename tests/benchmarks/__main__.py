"""All ratios that we quote, measured on this machine: python -m tests.benchmarks."""

from tests.benchmarks import labelling, snapshots

if __name__ == "__main__":
    snapshots.main()
    labelling.main()
