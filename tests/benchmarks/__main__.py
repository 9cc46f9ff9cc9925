"""All ratios that we quote, measured on this machine: python -m tests.benchmarks."""

from tests.benchmarks import labelling

if __name__ == "__main__":
    labelling.main()
