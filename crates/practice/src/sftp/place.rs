//! Keeps the paths of SFTP clients inside the folder: `..` stops at the top, links that lead out are refused.
//!
//! Clients cannot make links here, so a link that leads out was put there by somebody with access to the disk; the check
//! need not win a race against him.

use std::io;
use std::path::{Path, PathBuf};

/// Resolves a path as clients see it: absolute, without `.` and `..`.
pub(super) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Finds what a path leads to, through links. What is not there yet is found in its folder.
///
/// # Errors
/// `PermissionDenied` when it leads out of `root`, `NotFound` when its folder is not there.
pub(super) fn follow(root: &Path, path: &str) -> io::Result<PathBuf> {
    let place = entry(root, path)?;
    match place.canonicalize() {
        Ok(target) if target.starts_with(root) => Ok(target),
        Ok(_) => Err(io::ErrorKind::PermissionDenied.into()),
        // A link to nowhere could make a file anywhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.is_symlink() => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place),
        Err(error) => Err(error),
    }
}

/// Finds the entry that a path names; when that is a link, the link itself.
///
/// # Errors
/// `PermissionDenied` when its folder leads out of `root`, `NotFound` when that is not there.
pub(super) fn entry(root: &Path, path: &str) -> io::Result<PathBuf> {
    let path = absolute(path);
    let Some((folder, name)) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Ok(root.to_owned());
    };
    let folder = root.join(folder.trim_start_matches('/')).canonicalize()?;
    if folder.starts_with(root) { Ok(folder.join(name)) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stop_at_the_top() {
        for (path, expected) in [("", "/"), (".", "/"), ("/../..", "/"), ("a/../../b", "/b"), ("//a/./b/", "/a/b")] {
            assert_eq!(absolute(path), expected);
        }
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = inside.path().canonicalize().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("new"), root.join("dangling")).unwrap();
        for path in ["/out", "/out/secret", "/out/new", "/dangling"] {
            assert_eq!(follow(&root, path).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
        assert_eq!(entry(&root, "/out").unwrap(), root.join("out"), "the link itself can be seen and removed");
        assert_eq!(follow(&root, "/../new").unwrap(), root.join("new"));
        assert_eq!(follow(&root, "/none/new").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
