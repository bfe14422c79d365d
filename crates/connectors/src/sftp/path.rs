//! Names of remote files: what is a file's directory, what its temporary name.

use rand::Rng as _;

use crate::error::{Error, Kind, Result};

/// Longest name of one file in bytes that every usual file system takes.
const SEGMENT_BYTES_MAX: usize = 255;
/// What stands between a file's name and the random part of its temporary one.
const MARK: &str = ".consign-";
/// How the temporary name of a file that is being written ends.
const PART: &str = ".part";
/// How the temporary name of a file that is being replaced ends, where the server cannot replace in one step.
const OLD: &str = ".old";
/// Random bytes of a temporary name.
const RANDOM_BYTES: usize = 4;

/// Checks that `name` can be a file's.
///
/// # Errors
/// [`Kind::InvalidRequest`].
pub(super) fn check(name: &str) -> Result<()> {
    let refused = |detail| Err(Error::new(Kind::InvalidRequest, "checking the file name", detail));
    let (_, base) = split(name);
    if base.is_empty() || base == "." || base == ".." {
        return refused(format!("`{name}` names a directory, not a file"));
    }
    if name.contains('\0') {
        return refused("a file name cannot hold a zero byte".to_owned());
    }
    if base.len() > SEGMENT_BYTES_MAX {
        return refused(format!("the file name `{base}` is longer than {SEGMENT_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Splits a name into its directory, with the slash, and the rest. The directory is empty for the login directory.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('/').map_or(0, |slash| slash + 1))
}

/// `directory` and all that it lies in, the deepest first, without the root and the login directory.
pub(super) fn ancestors(directory: &str) -> impl Iterator<Item = &str> {
    let cut = |path: &str| path.trim_end_matches('/').len();
    std::iter::successors(Some(&directory[..cut(directory)]), move |path| {
        let parent = split(path).0;
        Some(&parent[..cut(parent)])
    })
    .take_while(|path| !path.is_empty())
}

/// Makes a temporary name in the directory of `target`.
pub(super) fn temporary(target: &str) -> String {
    let (directory, base) = split(target);
    let random = hex::encode(rand::rng().random::<[u8; RANDOM_BYTES]>());
    let spent = ".".len() + MARK.len() + random.len() + PART.len();
    let kept = &base[..base.floor_char_boundary(SEGMENT_BYTES_MAX - spent)];
    format!("{directory}.{kept}{MARK}{random}{PART}")
}

/// The name that the old file has while the new one, `temporary`, takes its place step by step. It follows from the
/// other name, so that the journal need not be told of it.
pub(super) fn aside(temporary: &str) -> String {
    format!("{}{OLD}", temporary.strip_suffix(PART).unwrap_or(temporary))
}

/// Whether this is the name of an upload that is under way.
pub(super) fn is_temporary(base: &str) -> bool {
    let random = base.strip_suffix(PART).or_else(|| base.strip_suffix(OLD)).and_then(|rest| rest.rsplit_once(MARK));
    base.starts_with('.')
        && random.is_some_and(|(_, hex)| hex.len() == 2 * RANDOM_BYTES && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Puts a file's name after its directory's.
pub(super) fn join(directory: &str, base: &str) -> String {
    let slash = if directory.is_empty() || directory.ends_with('/') { "" } else { "/" };
    format!("{directory}{slash}{base}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_stay_in_the_directory_and_fit() {
        let name = temporary("a/b/c.txt");
        assert!(name.starts_with("a/b/.c.txt.consign-") && name.ends_with(PART), "{name}");
        assert!(aside(&name).ends_with(OLD));
        for base in ["n".repeat(255), "🦀".repeat(63)] {
            let name = temporary(&format!("d/{base}"));
            assert!(split(&name).1.len() <= 255 && split(&name).1.len() > 250, "{name}");
            assert!(is_temporary(split(&name).1) && is_temporary(split(&aside(&name)).1));
        }
        assert_ne!(temporary("x"), temporary("x"));
    }

    #[test]
    fn other_names_are_not_temporary() {
        for base in ["c.part", ".c.consign-1234567.part", "c.consign-12345678.part", ".c.consign-1234567g.part", ""] {
            assert!(!is_temporary(base), "{base}");
        }
    }

    #[test]
    fn ancestors_end_below_the_root() {
        assert_eq!(ancestors("/a/b//c/").collect::<Vec<_>>(), ["/a/b//c", "/a/b", "/a"]);
        assert_eq!(ancestors("a/b/").collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(ancestors("/").count() + ancestors("").count(), 0);
    }

    #[test]
    fn names_of_directories_are_refused() {
        for name in ["", "a/", "/", "a/..", ".", "a/\0"] {
            assert_eq!(check(name).map_err(|error| error.kind), Err(Kind::InvalidRequest), "{name:?}");
        }
        for name in ["a", "/a/b", "...", "a b/ü"] {
            check(name).unwrap();
        }
    }
}
