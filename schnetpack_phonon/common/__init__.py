"""Basis of all other folders: keys and units, errors, files, processes, progress, pages."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    digests: contents_digest file_digest hash_of settings_hash structure_digest structure_hash
    errors: PhononError AttributionError ComparisonError DatabaseError DeadWorkerError HeldOutError
        LabellingError ManifestError MissingLabelsError ReportError RunError UnavailableError
        UnreadableFileError
    executors: call_apart call_within exit_with_parent process_pool
    files: UNTRUSTED Trust advice check_folder locked no_empty_file read_npz
        replacing sync_folder
    page: Picture Section Table markdown_table strings write_markdown write_page
    progress: Progress duration rate
    properties: Property array_shape element_names label property_of unit
    random: drawn interval snapshot_stream snapshot_streams
    """,
)
