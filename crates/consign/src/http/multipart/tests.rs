//! Every dialect, whole and byte by byte.
