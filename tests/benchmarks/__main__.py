"""All ratios that we quote, measured on this machine: python -m tests.benchmarks."""

from tests.benchmarks import (
    attribution,
    hamiltonian,
    heads,
    label_store,
    labelling,
    loading,
    snapshots,
)

if __name__ == "__main__":
    snapshots.main()
    labelling.main([])
    label_store.main()
    loading.main([])
    heads.main()
    hamiltonian.main()
    attribution.main([])
