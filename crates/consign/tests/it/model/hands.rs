//! Many hands at once on few rows.
